package machine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// candidates are the interfaces that may become the uplink, up: the one that the boot
// configuration names, or all that have hardware behind them. With a VLAN it is the
// tagged network on each.
func (n *network) candidates() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []netlink.Link
	for _, link := range all {
		if !n.wants(link) {
			continue
		}
		a := link.Attrs()
		if err := netlink.LinkSetUp(link); err != nil {
			n.log.Warn("a network interface stays down", "interface", a.Name, "err", err)
			continue
		}
		if n.want.VLAN > 0 {
			if link, err = tagged(link, n.want.VLAN); err != nil {
				return nil, err
			}
		}
		out = append(out, link)
	}
	// Those with a cable first.
	slices.SortStableFunc(out, func(a, b netlink.Link) int { return carrier(b) - carrier(a) })
	return out, nil
}

// wants says whether an interface may be the uplink. One that is called by its name need
// not be hardware.
func (n *network) wants(link netlink.Link) bool {
	a := link.Attrs()
	switch n.want.Interface {
	case a.Name:
		return true
	case "", a.HardwareAddr.String():
		return hasHardware(a.Name)
	}
	return false
}

func carrier(link netlink.Link) int {
	if link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
		return 1
	}
	return 0
}

// hasHardware tells interfaces one can plug a cable into.
func hasHardware(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name + "/device")
	return err == nil
}

// tagged returns the interface of a VLAN, made if it is missing.
func tagged(parent netlink.Link, vlan int) (netlink.Link, error) {
	name := parent.Attrs().Name + "." + strconv.Itoa(vlan)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, parent.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: vlan}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make VLAN interface %s: %w", name, err)
	}
	if err := setUp(name); err != nil {
		return nil, err
	}
	return netlink.LinkByName(name)
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring up network interface %s: %w", name, err)
	}
	return nil
}

// configure gives an interface its address and the machine its way out. What is there
// already is replaced, so that it can be done again.
func (u *Uplink) configure(link netlink.Link) error {
	ip := net.ParseIP(u.Address)
	family, length := netlink.FAMILY_V4, 32
	if ip.To4() == nil {
		family, length = netlink.FAMILY_V6, 128
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(u.Bits, length)}}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("give %s to %s: %w", address, u.Interface, err)
	}
	old, err := netlink.AddrList(link, family)
	if err != nil {
		return err
	}
	for _, a := range old {
		if !a.IP.Equal(ip) && a.Scope == unix.RT_SCOPE_UNIVERSE && family == netlink.FAMILY_V4 {
			if err := netlink.AddrDel(link, &a); err != nil {
				return fmt.Errorf("take %s from %s: %w", a.IP, u.Interface, err)
			}
		}
	}
	if u.Gateway == "" {
		return dropDefault(family)
	}
	gateway := net.ParseIP(u.Gateway)
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway, Dst: anywhere(family)}
	if !address.Contains(gateway) {
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route through %s: %w", u.Gateway, err)
	}
	return nil
}

// dropDefault takes away the machine's way out.
func dropDefault(family int) error {
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: anywhere(family), Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_RA {
			continue // the router said so, and will again
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("take away the route through %s: %w", r.Gw, err)
		}
	}
	return nil
}

func anywhere(family int) *net.IPNet {
	if family == netlink.FAMILY_V6 {
		return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
}
