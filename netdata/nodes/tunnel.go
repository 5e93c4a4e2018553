package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TunnelDev is the one vxlan device.
const TunnelDev = "bothy-tunnel"

// port is that of IANA.
const port = 4789

// Overhead is what a tunnel takes of a packet, in bytes: the outer headers, UDP's, vxlan's and the
// inner Ethernet header.
func Overhead(outer netip.Addr) int {
	if outer.Is4() {
		return 20 + 8 + 8 + 14
	}
	return 40 + 8 + 8 + 14
}

// tunnelMAC is derived from a node's first address, so that nobody has to be asked.
func tunnelMAC(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	return append(net.HardwareAddr{0x02, 0x0c}, b[len(b)-4:]...)
}

// ensureTunnel makes the device, or finds it. The node's processes speak to pods elsewhere from the
// first address of its own pod ranges, so that answers come back through the tunnel.
func ensureTunnel(self Node, mtu int) (netlink.Link, error) {
	dev, err := findTunnel()
	if err != nil {
		return nil, err
	}
	if dev == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = TunnelDev, mtu, tunnelMAC(self.Addrs[0])
		vxlan := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: port, UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true}
		if err := netlink.LinkAdd(vxlan); err != nil {
			return nil, fmt.Errorf("make the tunnel device (the kernel needs vxlan): %w", err)
		}
		if dev, err = netlink.LinkByName(TunnelDev); err != nil {
			return nil, fmt.Errorf("find %s: %w", TunnelDev, err)
		}
		if err := netlink.LinkSetIP6AddrGenMode(dev, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && self.addr(netip.IPv6Unspecified()).IsValid() {
			return nil, fmt.Errorf("keep %s from making itself an address: %w", TunnelDev, err)
		}
	}
	if dev.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(dev, mtu); err != nil {
			return nil, fmt.Errorf("set the MTU of %s to %d: %w", TunnelDev, mtu, err)
		}
	}
	for _, p := range self.Pods {
		addr := &netlink.Addr{IPNet: hostNet(nodeAddr(p))}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(dev, addr); err != nil {
			return nil, fmt.Errorf("give %s the address %s: %w", TunnelDev, addr, err)
		}
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return nil, fmt.Errorf("bring up %s: %w", TunnelDev, err)
	}
	return dev, nil
}

// within is the node's own address in its pod range of the family of another range, not valid if it has none.
func (n Node) within(like netip.Prefix) netip.Addr {
	for _, p := range n.Pods {
		if p.Addr().Is4() == like.Addr().Is4() {
			return nodeAddr(p)
		}
	}
	return netip.Addr{}
}

// nodeAddr is the node's own address in a pod range, which no pod gets.
func nodeAddr(pods netip.Prefix) netip.Addr { return pods.Addr().Next() }

// removeTunnel deletes the device if it is there.
func removeTunnel() error {
	dev, err := findTunnel()
	if err != nil || dev == nil {
		return err
	}
	if err := netlink.LinkDel(dev); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", TunnelDev, err)
	}
	return nil
}

// findTunnel returns nil if there is no such device.
func findTunnel() (netlink.Link, error) {
	dev, err := netlink.LinkByName(TunnelDev)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", TunnelDev, err)
	}
	return dev, nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
