package sandbox

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// haveIPv6 says whether the machine has IPv6 and interfaces to come would have it.
func haveIPv6() bool {
	for _, conf := range []string{"all", "default"} {
		off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + conf + "/disable_ipv6")
		if err != nil || string(bytes.TrimSpace(off)) != "0" {
			return false
		}
	}
	return true
}

// candidates6 are the ranges for a node's link in IPv6, in the order in which they are tried: unique local
// addresses, in the /48 that the default ranges of a cluster are from.
func candidates6(stateDir string) []netip.Prefix {
	const count = 64
	first := sha256.Sum256([]byte(stateDir))[0]
	var out []netip.Prefix
	for i := range byte(count) {
		a := netip.MustParseAddr("fd62:6f74:6879:6400::").As16()
		a[7] = 64 + (first+i)%count
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), 64))
	}
	return out
}

// choose6 does for IPv6 what choose4 does. A machine without IPv6 has nodes without, and so has one
// whose ranges are all taken.
func (n *Network) choose6(stateDir string) error {
	kept := n.Prefix6
	n.Prefix6, n.HostAddress6 = "", ""
	if !haveIPv6() {
		return nil
	}
	routes, err := usedPrefixes(n.Link, unix.AF_INET6)
	if err != nil {
		return err
	}
	prefixes := candidates6(stateDir)
	if kept != "" {
		p, err := netip.ParsePrefix(kept)
		if err != nil {
			return fmt.Errorf("IPv6 address range in %s: %w", recordFile, err)
		}
		prefixes = append([]netip.Prefix{p}, prefixes...)
	}
	for _, p := range prefixes {
		if overlapping(p, routes).IsValid() {
			continue
		}
		n.Prefix6, n.HostAddress6 = p.String(), p.Addr().Next().String()
		return nil
	}
	return nil
}

// openUplink6 lets the node reach what the host reaches over IPv6, with the host's address, and reports whether
// it does. Where the host cannot forward without becoming a router as
// a whole, which would make it deaf to the routers around it, the node has no way out over
// IPv6, and is told at once by its own stack when it tries.
func (n *Network) openUplink6() (bool, error) {
	if n.HostAddress6 == "" {
		return false, nil
	}
	uplink, err := defaultInterface(unix.AF_INET6)
	if err != nil || uplink == "" {
		return false, err
	}
	forwards, err := n.forward6(uplink)
	if err != nil || !forwards {
		return false, err
	}
	return true, masquerade(n.Link, n.Prefix6)
}

// routeOut6 tells process pid's namespace that there is a way out over IPv6.
func (n *Network) routeOut6(pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer ns.Close()
	node, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer node.Close()
	everywhere := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	if err := node.RouteAdd(&netlink.Route{Dst: everywhere, Gw: net.ParseIP(n.HostAddress6)}); err != nil {
		return fmt.Errorf("give the node its way out over IPv6: %w", err)
	}
	return nil
}

// forward6 has the host forward what comes in by the node's link and by its uplink. Kernels
// from 6.17 on can do so for single interfaces.
func (n *Network) forward6(uplink string) (bool, error) {
	all, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding")
	if err != nil {
		return false, fmt.Errorf("forward packets of the node: %w", err)
	}
	if string(bytes.TrimSpace(all)) == "1" {
		return true, nil
	}
	for _, name := range []string{n.Link, uplink} {
		old, err := os.ReadFile(forceForwarding(name))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if string(bytes.TrimSpace(old)) == "1" {
			continue
		}
		if err := os.WriteFile(forceForwarding(name), []byte("1"), 0o644); err != nil {
			return false, fmt.Errorf("forward IPv6 packets of the node: %w", err)
		}
		if name != n.Link { // our own link goes away by itself
			n.Forwarding6 = append(n.Forwarding6, name)
		}
	}
	return true, nil
}

func (n *Network) stopForwarding6() error {
	for _, name := range n.Forwarding6 {
		err := os.WriteFile(forceForwarding(name), []byte("0"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stop forwarding IPv6 on %s: %w", name, err)
		}
	}
	n.Forwarding6 = nil
	return nil
}

func forceForwarding(dev string) string {
	return "/proc/sys/net/ipv6/conf/" + dev + "/force_forwarding"
}
