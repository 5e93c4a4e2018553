package netdata

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/netdata/maps"
)

// Config is all the wing is told.
type Config struct {
	// StateDir is the node's persistent directory; the wing uses netdata/ in it.
	StateDir string
	// RunDir is the node's tmpfs, which lives as long as its namespaces.
	RunDir string
	// BPFDir is a directory on a bpffs with the same life.
	BPFDir string
	// CNIConfDir is where the container runtime looks for its network
	// configuration; RunDir/cni/net.d if empty.
	CNIConfDir string
	// NodeName is the name of the node's Node object.
	NodeName string
	// NodeIPs are the node's addresses on Uplink, at most one per family. They decide
	// which families the node has; the first is what others know the node by.
	NodeIPs []netip.Addr
	// Uplink is the interface to the world outside.
	Uplink string
	// HostCgroup is a cgroup2 directory that holds the node's host processes. If it is empty or
	// cannot be used, host processes do not reach Services; Status says so.
	HostCgroup string
	// PodCIDRs are the node's pod ranges, at most one per family. If there are none, the
	// Node object's are used, and remembered. A range of a family that the
	// node does not have is left alone.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs are the ranges of cluster IPs, at most one per family, with one for each
	// family of the node.
	ServiceCIDRs []netip.Prefix
	// ClusterPodCIDRs are the ranges of all pods of the cluster: they see each other's addresses.
	ClusterPodCIDRs []netip.Prefix
	// NonMasqueradeCIDRs are further ranges that see pods' own addresses.
	NonMasqueradeCIDRs []netip.Prefix
	// Encapsulate has packets to pods of all other nodes wrapped, not only those that a router lies before.
	Encapsulate bool
	// SpliceNamespaces have connections between their pods bypass the TCP stack. It needs HostCgroup, with
	// the pods' processes below it; if that cannot be had, Status says so.
	SpliceNamespaces []string
	// Pools have the addresses of Services of type LoadBalancer.
	Pools []v1alpha1.AddressPool
	// ClusterDNS are the addresses the wing answers DNS on, each in a service range. Those of a
	// family that the node does not have are left alone.
	ClusterDNS []netip.Addr
	// ClusterDomain such as cluster.local.
	ClusterDomain string
	// Upstreams answer for names outside the cluster.
	Upstreams []netip.AddrPort
	// NodePortRange is checked against the ports used for masquerading.
	NodePortRange PortRange
	// Reader says that this node may only read: others give Services of type LoadBalancer their
	// addresses.
	Reader bool
	// Kubeconfig is of the identity "netdata", DNSKubeconfig of "dns". The files
	// may appear later.
	Kubeconfig    string
	DNSKubeconfig string
	// Log is required.
	Log *slog.Logger

	// forceFilter has tests on new kernels use what old kernels use.
	forceFilter bool
	// flows overrides the size of the flow tables, for tests that fill them.
	flows uint32
}

// PortRange is inclusive.
type PortRange struct {
	First, Last uint16
}

func (c Config) check() (Config, error) {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(c.StateDir != "" && c.RunDir != "" && c.BPFDir != "", "StateDir, RunDir and BPFDir must be set")
	need(c.NodeName != "", "NodeName must be set")
	need(len(c.NodeIPs) > 0, "NodeIPs must hold the node's address")
	need(c.Uplink != "", "Uplink must be set")
	need(onePerFamily(c.NodeIPs), "NodeIPs must hold at most one address per family")
	need(onePerFamily(c.ClusterDNS), "ClusterDNS must hold at most one address per family")
	need(onePerFamily(addresses(c.PodCIDRs)), "PodCIDRs must hold at most one range per family")
	need(onePerFamily(addresses(c.ServiceCIDRs)), "ServiceCIDRs must hold at most one range per family")
	need(c.ClusterDomain != "", "ClusterDomain must be set")
	need(c.Log != nil, "Log must be set")
	for _, ip := range c.NodeIPs {
		if !slices.ContainsFunc(c.ServiceCIDRs, func(p netip.Prefix) bool { return sameFamily(p.Addr(), ip) }) {
			errs = append(errs, fmt.Errorf("ServiceCIDRs must hold an %s range, because the node has the address %s", maps.FamilyOf(ip), ip))
		}
	}
	if r := c.NodePortRange; r.Last >= snatPortMin {
		errs = append(errs, fmt.Errorf("NodePortRange %d-%d: ports from %d on are used for masquerading", r.First, r.Last, snatPortMin))
	}
	errs = append(errs, c.overlap(c.PodCIDRs))
	if c.CNIConfDir == "" {
		c.CNIConfDir = filepath.Join(c.RunDir, "cni", "net.d")
	}
	c.ServiceCIDRs, c.PodCIDRs = c.mine(c.ServiceCIDRs), c.mine(c.PodCIDRs)
	c.ClusterDNS = slices.DeleteFunc(slices.Clone(c.ClusterDNS), func(a netip.Addr) bool { return !c.has(a) })
	need(len(c.ClusterDNS) > 0, "ClusterDNS must hold an address of a family of the node")
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("network configuration: %w", err)
	}
	return c, nil
}

// has says whether the node has the family of an address.
func (c Config) has(a netip.Addr) bool {
	return slices.ContainsFunc(c.NodeIPs, func(ip netip.Addr) bool { return sameFamily(ip, a) })
}

// lacking are the service ranges of families that the node does not have.
func (c Config) lacking() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(c.ServiceCIDRs), func(p netip.Prefix) bool { return c.has(p.Addr()) })
}

// mine are the ranges of families that the node has, in the order of its addresses.
func (c Config) mine(ranges []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, ip := range c.NodeIPs {
		for _, p := range ranges {
			if sameFamily(p.Addr(), ip) {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

func sameFamily(a, b netip.Addr) bool { return a.Is4() == b.Is4() }

func onePerFamily(addrs []netip.Addr) bool {
	return len(addrs) < 2 || len(addrs) == 2 && !sameFamily(addrs[0], addrs[1])
}

func addresses(ranges []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range ranges {
		out = append(out, p.Addr())
	}
	return out
}

func (c Config) socket() string       { return filepath.Join(c.RunDir, "cni.sock") }
func (c Config) runDir() string       { return filepath.Join(c.RunDir, "netdata") }
func (c Config) podRangeFile() string { return filepath.Join(c.StateDir, "netdata", "pod-range.json") }
