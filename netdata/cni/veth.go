package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

// devPrefix begins the name of the host side of every pod's veth pair.
const devPrefix = "pod"

// gateway is the pods' next hop. It is nobody's address: a permanent neighbour entry
// leads to the host side, whose hardware address is the same for all pods and
// the one the programs use as source.
var (
	gateway = netip.MustParseAddr("169.254.1.1")
	hostMAC = net.HardwareAddr{0x02, 0xee, 0xee, 0xee, 0xee, 0xee}
)

// devName derives the host side's name from the attachment, so that DEL finds
// it without any record.
func devName(a wire.Attachment) string {
	sum := sha256.Sum256([]byte(a.ContainerID + "/" + a.IfName))
	return devPrefix + hex.EncodeToString(sum[:6])
}

// podMAC is locally administered and unique as long as the address is.
func podMAC(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{0x02, 0x0b, b[0], b[1], b[2], b[3]}
}

// makeVeth makes the pair and configures both ends. The host side comes up last, when
// the caller has attached the programs.
func makeVeth(rec record, mtu int) (netlink.Link, error) {
	ns, err := netns.GetFromPath(rec.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", rec.Netns, err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = rec.Dev, hostMAC, mtu
	pair := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         rec.IfName,
		PeerHardwareAddr: podMAC(rec.Addr),
		PeerMTU:          uint32(mtu),
		PeerNamespace:    netlink.NsFd(ns),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("create veth pair %s: %w", rec.Dev, err)
	}
	dev, err := netlink.LinkByName(rec.Dev)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", rec.Dev, err)
	}
	// Marks the interface as ours, for whoever looks with `ip link`.
	if err := netlink.LinkSetAlias(dev, "bothy "+rec.Pod); err != nil {
		return nil, fmt.Errorf("set alias of %s: %w", rec.Dev, err)
	}
	// IPv6 is not filtered yet, so it must not pass.
	if err := writeSysctl("net/ipv6/conf/"+rec.Dev+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	if err := configurePod(ns, rec); err != nil {
		return nil, err
	}
	return dev, nil
}

func configurePod(ns netns.NsHandle, rec record) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", rec.Netns, err)
	}
	defer h.Close()
	if lo, err := h.LinkByName("lo"); err == nil {
		if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("bring up lo in the pod: %w", err)
		}
	}
	dev, err := h.LinkByName(rec.IfName)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", rec.IfName, err)
	}
	index := dev.Attrs().Index
	if err := h.AddrAdd(dev, &netlink.Addr{IPNet: host(rec.Addr)}); err != nil {
		return fmt.Errorf("add address %s to the pod: %w", rec.Addr, err)
	}
	if err := h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s in the pod: %w", rec.IfName, err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex: index, IP: gateway.AsSlice(), HardwareAddr: hostMAC, State: netlink.NUD_PERMANENT,
	}
	if err := h.NeighSet(neighbour); err != nil {
		return fmt.Errorf("add gateway's neighbour entry to the pod: %w", err)
	}
	routes := []netlink.Route{
		{LinkIndex: index, Dst: host(gateway), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: gateway.AsSlice()},
	}
	for _, r := range routes {
		if err := h.RouteAdd(&r); err != nil {
			return fmt.Errorf("add route %s to the pod: %w", r.Dst, err)
		}
	}
	return nil
}

// connect brings the host side up and routes the pod's address to it.
func connect(dev netlink.Link, addr netip.Addr) error {
	if err := netlink.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s: %w", dev.Attrs().Name, err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex: dev.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: podMAC(addr), State: netlink.NUD_PERMANENT,
	}
	if err := netlink.NeighSet(neighbour); err != nil {
		return fmt.Errorf("add neighbour entry of %s: %w", addr, err)
	}
	route := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: host(addr), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s to %s: %w", addr, dev.Attrs().Name, err)
	}
	return nil
}

// removeDev deletes an interface and with it its peer. One that is gone is no
// error.
func removeDev(name string) error {
	dev, err := findDev(name)
	if err != nil || dev == nil {
		return err
	}
	if err := netlink.LinkDel(dev); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// findDev returns nil if there is no such interface.
func findDev(name string) (netlink.Link, error) {
	dev, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return dev, nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func writeSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no IPv6 in this kernel
	}
	if err != nil {
		return fmt.Errorf("set %s=%s: %w", name, value, err)
	}
	return nil
}
