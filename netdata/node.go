package netdata

import (
	"errors"
	"fmt"
	"io/fs"
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

// sysctls of the node's network namespace, each with its reason.
func sysctls() []struct{ name, value, why string } {
	return []struct{ name, value, why string }{
		{"net/ipv4/ip_forward", "1", "pods reach the outside through the stack's routes"},
		{"net/ipv4/conf/all/rp_filter", "0", "answers to pods are redirected past the stack, which would find their way asymmetric"},
		{"net/ipv4/conf/default/rp_filter", "0", "as above, for interfaces to come: the stricter of both settings counts"},
		{"net/ipv4/conf/all/send_redirects", "0", "a pod's gateway is no router it could be pointed past"},
		{
			"net/ipv4/ip_local_port_range", "32768 " + strconv.Itoa(loader.SNATPortMin-1),
			"host sockets and masqueraded pods share the node's address, so they must not share ports",
		},
	}
}

// prepareNode sets up what the programs rely on in the stack. It is idempotent.
func (n *Network) prepareNode() error {
	for _, s := range sysctls() {
		if err := setSysctl(s.name, s.value); err != nil {
			return fmt.Errorf("%w (needed because %s)", err, s.why)
		}
	}
	if err := addDNSAddress(n.cfg.ClusterDNS); err != nil {
		return err
	}
	serviceCIDR, _ := n.cfg.serviceCIDR()
	// What no program translated must not leave by the default route.
	return unreachable(serviceCIDR)
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
	if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: hostPrefix(addr), Scope: unix.RT_SCOPE_LINK}); err != nil {
		return fmt.Errorf("give the node the cluster DNS address %s: %w", addr, err)
	}
	return nil
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

func (n *Network) mtu() (int, error) {
	dev, err := netlink.LinkByName(n.cfg.Uplink)
	if err != nil {
		return 0, fmt.Errorf("find uplink %q: %w", n.cfg.Uplink, err)
	}
	return dev.Attrs().MTU, nil
}

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
