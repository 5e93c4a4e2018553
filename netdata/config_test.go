package netdata

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

func goodConfig() Config {
	return Config{
		StateDir: "/state", RunDir: "/run", BPFDir: "/bpf", NodeName: "a", Uplink: "eth0",
		NodeIPs:       []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		PodCIDRs:      prefixes("fd00:1::/64", "10.244.0.0/24"),
		ServiceCIDRs:  prefixes("fd00:96::/112", "10.96.0.0/16"),
		ClusterDNS:    []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")},
		ClusterDomain: "cluster.local", NodePortRange: PortRange{30000, 32767}, Log: slog.New(slog.DiscardHandler),
	}
}

func TestConfigTakesTheOrderOfTheNodesAddresses(t *testing.T) {
	c, err := goodConfig().check()
	if err != nil {
		t.Fatal(err)
	}
	if c.PodCIDRs[0].String() != "10.244.0.0/24" || c.ServiceCIDRs[0].String() != "10.96.0.0/16" {
		t.Errorf("pods %v, services %v", c.PodCIDRs, c.ServiceCIDRs)
	}
	one := goodConfig()
	one.NodeIPs = one.NodeIPs[1:]
	if c, err = one.check(); err != nil {
		t.Fatal(err)
	}
	if len(c.PodCIDRs) != 1 || len(c.ServiceCIDRs) != 1 || len(c.ClusterDNS) != 1 || !c.ClusterDNS[0].Is6() {
		t.Errorf("a node with IPv6 alone: %+v", c)
	}
}

func TestFaultyConfigIsRefused(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"NodeIPs must hold the node's address":                    func(c *Config) { c.NodeIPs = nil },
		"NodeIPs must hold at most one address per family":        func(c *Config) { c.NodeIPs = append(c.NodeIPs, c.NodeIPs[0]) },
		"ServiceCIDRs must hold an IPv6 range":                    func(c *Config) { c.ServiceCIDRs = c.ServiceCIDRs[1:] },
		"PodCIDRs must hold at most one range per family":         func(c *Config) { c.PodCIDRs[0] = c.PodCIDRs[1] },
		"ClusterDNS must hold an address of a family of the node": func(c *Config) { c.NodeIPs, c.ClusterDNS = c.NodeIPs[:1], c.ClusterDNS[1:] },
		"ports from 49152 on are used for masquerading":           func(c *Config) { c.NodePortRange.Last = 50000 },
		"Uplink must be set":                                      func(c *Config) { c.Uplink = "" },
	} {
		c := goodConfig()
		change(&c)
		if _, err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
