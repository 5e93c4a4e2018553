package netdata

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/loader"
)

type sysctl struct{ name, value, why string }

// sysctls of the node's network namespace, each with its reason.
func (n *Network) sysctls() []sysctl {
	out := []sysctl{{
		"net/ipv4/ip_local_port_range", "32768 " + strconv.Itoa(loader.SNATPortMin-1), // of both families
		"host sockets and masqueraded pods share the node's address, so they must not share ports",
	}}
	if n.cfg.has(netip.IPv4Unspecified()) {
		out = append(
			out,
			sysctl{"net/ipv4/ip_forward", "1", "pods reach the outside through the stack's routes"},
			sysctl{"net/ipv4/conf/all/rp_filter", "0", "answers to pods are redirected past the stack, which would find their way asymmetric"},
			sysctl{"net/ipv4/conf/default/rp_filter", "0", "as above, for interfaces to come: the stricter of both settings counts"},
			sysctl{"net/ipv4/conf/all/send_redirects", "0", "a pod's gateway is no router it could be pointed past"},
		)
	}
	if n.cfg.has(netip.IPv6Unspecified()) {
		if advised("net/ipv6/conf/" + n.cfg.Uplink + "/accept_ra") {
			out = append(out, sysctl{
				"net/ipv6/conf/" + n.cfg.Uplink + "/accept_ra", "2",
				"a machine that forwards does not listen to routers otherwise, and would lose its own routes",
			})
		}
		out = append(out, sysctl{"net/ipv6/conf/all/forwarding", "1", "pods reach the outside through the stack's routes"})
	}
	return out
}

// advised says that the interface takes the advice of routers as long as the machine is none.
func advised(name string) bool {
	value, err := os.ReadFile(filepath.Join("/proc/sys", name))
	return err == nil && sameFields(string(value), "1")
}

// prepareNode sets up what the programs rely on in the stack. It is idempotent.
func (n *Network) prepareNode() error {
	for _, s := range n.sysctls() {
		if err := setSysctl(s.name, s.value); err != nil {
			return fmt.Errorf("%w (needed because %s)", err, s.why)
		}
	}
	for _, a := range n.cfg.ClusterDNS {
		if err := addDNSAddress(a); err != nil {
			return err
		}
	}
	for _, p := range n.cfg.ServiceCIDRs {
		// What no program translated must not leave by the default route.
		if err := unreachable(p); err != nil {
			return err
		}
	}
	return nil
}

// setSysctl leaves a value alone that is right already: /proc/sys may be
// read-only, prepared by whoever made the namespace.
func setSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", name)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", name, err)
	}
	if sameFields(string(old), value) {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

// addDNSAddress gives the node the cluster DNS address, on lo: pods' queries are
// then local traffic.
func addDNSAddress(addr netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := netlink.AddrReplace(lo, dnsAddress(addr)); err != nil {
		return fmt.Errorf("give the node the cluster DNS address %s: %w", addr, err)
	}
	return nil
}

// dnsAddress is not one that the node would ever speak from by itself.
func dnsAddress(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: hostPrefix(a)}
	if a.Is4() {
		addr.Scope = unix.RT_SCOPE_LINK
		return addr
	}
	addr.Flags = unix.IFA_F_NODAD
	addr.PreferedLft, addr.ValidLft = 0, math.MaxUint32 // deprecated, for ever
	return addr
}

// unreachable makes the stack refuse a range where no more specific route
// exists: an address of a pod that is gone, or of a Service for a process whose sockets are not
// translated.
func unreachable(p netip.Prefix) error {
	if err := netlink.RouteReplace(unreachableRoute(p)); err != nil {
		return fmt.Errorf("add unreachable route for %s: %w", p, err)
	}
	return nil
}

func unreachableRoute(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Type:     unix.RTN_UNREACHABLE,
		Protocol: routeProtocol,
	}
}

// routeProtocol marks routes as ours in `ip route`.
const routeProtocol = 0xb0

// poolRouteProtocol marks those for address pools, which may change.
const poolRouteProtocol = 0xb2

// flowCapacity sizes the flow tables by the machine's memory: one flow for 64 KiB, between 64 Ki
// and 512 Ki flows. 2 GiB gives the minimum, at some 13 MiB for both tables.
func flowCapacity() uint32 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1 << 16
	}
	flows := uint32(1 << 16)
	for total := info.Totalram * uint64(info.Unit); flows < 1<<19 && uint64(flows)*2*(64<<10) <= total; {
		flows *= 2
	}
	return flows
}

func hostPrefix(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// sameFields compares values the way the kernel does, which separates by tabs.
func sameFields(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}
