package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/cni/wire"
	"github.com/bothy-os/bothy/netdata/within"
)

// devPrefix begins the name of the host side of every pod's veth pair.
const devPrefix = "pod"

// The gateways are the pods' next hop. They are nobody's address: a permanent neighbour entry
// leads to the host side, whose hardware address is the same for all pods and
// the one the programs use as source.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
	hostMAC  = net.HardwareAddr{0x02, 0xee, 0xee, 0xee, 0xee, 0xee}
)

func gatewayFor(a netip.Addr) netip.Addr {
	if a.Is4() {
		return gateway4
	}
	return gateway6
}

// everywhere is the default route's destination in the family of an address.
func everywhere(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
}

// devName derives the host side's name from the attachment, so that DEL finds
// it without any record.
func devName(a wire.Attachment) string {
	sum := sha256.Sum256([]byte(a.ContainerID + "/" + a.IfName))
	return devPrefix + hex.EncodeToString(sum[:6])
}

// mac is that of the pod's end: locally administered, and unique as long as the first address
// is: the end of it is in there.
func (r record) mac() net.HardwareAddr {
	b := r.Addrs[0].AsSlice()
	return append(net.HardwareAddr{0x02, 0x0b}, b[len(b)-4:]...)
}

// has6 says whether the pod has an IPv6 address.
func (r record) has6() bool { return slices.ContainsFunc(r.Addrs, netip.Addr.Is6) }

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
		PeerHardwareAddr: rec.mac(),
		PeerMTU:          uint32(mtu),
		PeerNamespace:    netlink.NsFd(ns),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("create veth pair %s, with %s in the pod: %w", rec.Dev, rec.IfName, err)
	}
	dev, err := netlink.LinkByName(rec.Dev)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", rec.Dev, err)
	}
	// Marks the interface as ours, for whoever looks with `ip link`.
	if err := netlink.LinkSetAlias(dev, "bothy "+rec.Pod); err != nil {
		return nil, fmt.Errorf("set alias of %s: %w", rec.Dev, err)
	}
	if err := quietIPv6(dev, rec); err != nil {
		return nil, err
	}
	if err := configurePod(ns, rec); err != nil {
		return nil, err
	}
	return dev, nil
}

// quietIPv6 keeps the host side from having addresses of its own. Of a pod without IPv6, nothing
// of it is heard at all.
func quietIPv6(dev netlink.Link, rec record) error {
	if !rec.has6() {
		return writeSysctl("net/ipv6/conf/"+rec.Dev+"/disable_ipv6", "1")
	}
	if err := netlink.LinkSetIP6AddrGenMode(dev, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		return fmt.Errorf("keep %s from making itself an address: %w", rec.Dev, err)
	}
	return nil
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
	if rec.has6() {
		if err := prepareIPv6(h, ns, dev); err != nil {
			return err
		}
	}
	for _, a := range rec.Addrs {
		// Nobody else can have the address: looking for a duplicate would only keep the pod waiting.
		addr := &netlink.Addr{IPNet: host(a)}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(dev, addr); err != nil {
			return fmt.Errorf("add address %s to the pod: %w", a, err)
		}
	}
	if err := h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s in the pod: %w", rec.IfName, err)
	}
	for _, a := range rec.Addrs {
		if err := routeOut(h, dev.Attrs().Index, a); err != nil {
			return err
		}
	}
	return nil
}

// prepareIPv6 makes sure that the pod has IPv6, and that its interface does not make itself a
// link-local address: nobody could be reached by it, and without one it asks no
// router for advice.
func prepareIPv6(h *netlink.Handle, ns netns.NsHandle, dev netlink.Link) error {
	name := dev.Attrs().Name
	if err := within.Netns(ns, func() error {
		for _, conf := range []string{name, "lo"} {
			if err := writeSysctl("net/ipv6/conf/"+conf+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("switch on IPv6 in the pod: %w", err)
	}
	if err := h.LinkSetIP6AddrGenMode(dev, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		return fmt.Errorf("keep %s in the pod from making itself an address: %w", name, err)
	}
	return nil
}

// routeOut gives the pod its way out in the family of one of its addresses.
func routeOut(h *netlink.Handle, index int, a netip.Addr) error {
	gateway := gatewayFor(a)
	neighbour := &netlink.Neigh{
		LinkIndex: index, IP: gateway.AsSlice(), HardwareAddr: hostMAC, State: netlink.NUD_PERMANENT,
	}
	if err := h.NeighSet(neighbour); err != nil {
		return fmt.Errorf("add gateway's neighbour entry to the pod: %w", err)
	}
	routes := []netlink.Route{{LinkIndex: index, Dst: everywhere(a), Gw: gateway.AsSlice()}}
	if a.Is4() { // a link-local gateway of IPv6 needs no route of its own
		routes = slices.Insert(routes, 0, netlink.Route{LinkIndex: index, Dst: host(gateway), Scope: netlink.SCOPE_LINK})
	}
	for _, r := range routes {
		if err := h.RouteAdd(&r); err != nil {
			return fmt.Errorf("add route %s to the pod: %w", r.Dst, err)
		}
	}
	return nil
}

// connect brings the host side up and routes the pod's addresses to it.
func connect(dev netlink.Link, rec record) error {
	if err := netlink.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s: %w", dev.Attrs().Name, err)
	}
	for _, addr := range rec.Addrs {
		neighbour := &netlink.Neigh{
			LinkIndex: dev.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: rec.mac(), State: netlink.NUD_PERMANENT,
		}
		if err := netlink.NeighSet(neighbour); err != nil {
			return fmt.Errorf("add neighbour entry of %s: %w", addr, err)
		}
		route := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: host(addr), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route %s to %s: %w", addr, dev.Attrs().Name, err)
		}
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
