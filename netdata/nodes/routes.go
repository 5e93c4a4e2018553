package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks the routes of this package in `ip route`.
const RouteProtocol = 0xb1

// onLink are the ranges of an interface's own addresses, without those of IPv6's link scope.
func onLink(dev netlink.Link) ([]netip.Prefix, error) {
	addrs, err := netlink.AddrList(dev, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", dev.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if ip = ip.Unmap(); ok && !ip.IsLinkLocalUnicast() {
			out = append(out, netip.PrefixFrom(ip, bits).Masked())
		}
	}
	return out, nil
}

// apply makes the kernel's routes to other nodes the given ones. A tunnel is nil unless a route
// needs it.
func apply(routes []Route, self Node, uplink, tunnel netlink.Link, macs map[netip.Addr]net.HardwareAddr) error {
	var errs []error
	want := map[netip.Prefix]bool{}
	for _, r := range routes {
		want[r.Pods] = true
		if r.Tunnel.IsValid() {
			errs = append(errs, applyTunnelled(r, self, tunnel, macs[r.Via]))
			continue
		}
		// The uplink may be told of the range before it has the address: on-link is known here.
		direct := newRoute(r, uplink)
		direct.Gw = r.Via.AsSlice()
		if err := netlink.RouteReplace(direct); err != nil {
			errs = append(errs, fmt.Errorf("add route %s: %w", r, err))
		}
	}
	return errors.Join(append(errs, removeOthers(want))...)
}

func applyTunnelled(r Route, self Node, tunnel netlink.Link, mac net.HardwareAddr) error {
	via := nextHop(r.Via, mac)
	neighbour := &netlink.Neigh{
		LinkIndex: tunnel.Attrs().Index, IP: via.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
	}
	if err := netlink.NeighSet(neighbour); err != nil {
		return fmt.Errorf("add neighbour entry of %s to %s: %w", via, TunnelDev, err)
	}
	wrapped := newRoute(r, tunnel)
	wrapped.Gw, wrapped.Flags, wrapped.Encap = via.AsSlice(), int(netlink.FLAG_ONLINK), &encap{r.Tunnel}
	if own := self.within(r.Pods); own.IsValid() {
		wrapped.Src = own.AsSlice()
	}
	if err := netlink.RouteReplace(wrapped); err != nil {
		return fmt.Errorf("add route %s: %w", r, err)
	}
	return nil
}

// nextHop is what a node is called on the tunnel's device. It is the node's own address with IPv4. With IPv6 the kernel takes none
// that it knows to be on another link, as the node's own may be: it is a link-local one that nobody else has.
func nextHop(via netip.Addr, mac net.HardwareAddr) netip.Addr {
	if via.Is4() {
		return via
	}
	a := netip.MustParseAddr("fe80::").As16()
	copy(a[16-len(mac):], mac)
	return netip.AddrFrom16(a)
}

func newRoute(r Route, dev netlink.Link) *netlink.Route {
	return &netlink.Route{
		LinkIndex: dev.Attrs().Index,
		Dst:       &net.IPNet{IP: r.Pods.Addr().AsSlice(), Mask: net.CIDRMask(r.Pods.Bits(), r.Pods.Addr().BitLen())},
		Protocol:  RouteProtocol,
	}
}

// removeOthers deletes routes of nodes that are gone.
func removeOthers(want map[netip.Prefix]bool) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			ip, _ := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if want[netip.PrefixFrom(ip.Unmap(), bits)] {
				continue
			}
			if err := netlink.RouteDel(&netlink.Route{Dst: r.Dst, LinkIndex: r.LinkIndex, Protocol: RouteProtocol}); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("remove route to %s: %w", r.Dst, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Cleanup removes every route and the device. The agent must not run.
func Cleanup() error {
	return errors.Join(removeOthers(nil), removeTunnel())
}
