package netdata

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
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
	// NodeIP is the node's IPv4 address on Uplink.
	NodeIP netip.Addr
	// Uplink is the interface to the world outside.
	Uplink string
	// HostCgroup is a cgroup2 directory that holds the node's host processes. If it is empty or
	// cannot be used, host processes do not reach Services; Status says so.
	HostCgroup string
	// PodCIDR is the node's pod range. If it is not set, the Node object's is
	// used, and remembered.
	PodCIDR netip.Prefix
	// ServiceCIDRs are the ranges of cluster IPs. Exactly one IPv4 range is
	// served; others are ignored with a notice.
	ServiceCIDRs []netip.Prefix
	// ClusterDNS is the address the wing answers DNS on; in a service range.
	ClusterDNS netip.Addr
	// ClusterDomain such as cluster.local.
	ClusterDomain string
	// Upstreams answer for names outside the cluster.
	Upstreams []netip.AddrPort
	// NodePortRange is checked against the ports used for masquerading.
	NodePortRange PortRange
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
	need(c.NodeIP.Is4(), "NodeIP must be an IPv4 address")
	need(c.Uplink != "", "Uplink must be set")
	need(c.ClusterDNS.Is4(), "ClusterDNS must be an IPv4 address")
	need(c.ClusterDomain != "", "ClusterDomain must be set")
	need(c.Log != nil, "Log must be set")
	need(!c.PodCIDR.IsValid() || c.PodCIDR.Addr().Is4(), "PodCIDR must be an IPv4 range")
	if _, ok := c.serviceCIDR(); !ok {
		errs = append(errs, errors.New("ServiceCIDRs must hold an IPv4 range"))
	}
	if r := c.NodePortRange; r.Last >= snatPortMin {
		errs = append(errs, fmt.Errorf("NodePortRange %d-%d: ports from %d on are used for masquerading", r.First, r.Last, snatPortMin))
	}
	errs = append(errs, c.overlap(c.PodCIDR))
	if c.CNIConfDir == "" {
		c.CNIConfDir = filepath.Join(c.RunDir, "cni", "net.d")
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("network configuration: %w", err)
	}
	return c, nil
}

func (c Config) serviceCIDR() (netip.Prefix, bool) {
	for _, p := range c.ServiceCIDRs {
		if p.Addr().Is4() {
			return p.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

func (c Config) socket() string       { return filepath.Join(c.RunDir, "cni.sock") }
func (c Config) runDir() string       { return filepath.Join(c.RunDir, "netdata") }
func (c Config) podRangeFile() string { return filepath.Join(c.StateDir, "netdata", "pod-range.json") }
