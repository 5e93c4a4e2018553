package netdata

import (
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/loader"
)

func expectText(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Logf("the error: %v", err)
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not mention %q", w)
		}
	}
}

// TestOverlappingRanges: two owners of one address are found before anything is done.
func TestOverlappingRanges(t *testing.T) {
	good := Config{
		StateDir: "/s", RunDir: "/r", BPFDir: "/b", NodeName: "node", NodeIPs: []netip.Addr{nodeIP}, Uplink: "eth0",
		ServiceCIDRs: prefixes("10.96.0.0/16"), ClusterDNS: []netip.Addr{dnsIP}, ClusterDomain: "cluster.local",
		PodCIDRs: prefixes("10.244.0.0/24"), Log: slog.New(slog.DiscardHandler),
	}
	if _, err := New(good); err != nil {
		t.Fatalf("ranges that do not overlap: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"pods in the Service range":   {func(c *Config) { c.PodCIDRs = prefixes("10.96.3.0/24") }, []string{"10.96.3.0/24", "10.96.0.0/16", "spec.network"}},
		"Services in the pod range":   {func(c *Config) { c.PodCIDRs = prefixes("10.0.0.0/8") }, []string{"10.0.0.0/8", "10.96.0.0/16"}},
		"the node in the pod range":   {func(c *Config) { c.NodeIPs = []netip.Addr{netip.MustParseAddr("10.244.0.9")} }, []string{"10.244.0.9", "10.244.0.0/24"}},
		"the node among the Services": {func(c *Config) { c.NodeIPs = []netip.Addr{netip.MustParseAddr("10.96.1.1")} }, []string{"10.96.1.1", "10.96.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			_, err := New(cfg)
			expectText(t, err, c.want...)
		})
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestBrokenMachines: what the kernel or the machine lacks is said, and nothing is left
// attached by halves.
func TestBrokenMachines(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	for _, c := range []struct {
		name   string
		change func(t *testing.T, c *Config)
		drop   []uint // capabilities
		want   []string
	}{
		{"no bpffs", func(t *testing.T, c *Config) { c.BPFDir = t.TempDir() }, nil, []string{"bpffs"}},
		{"no such uplink", func(_ *testing.T, c *Config) { c.Uplink = "eth7" }, nil, []string{"eth7"}},
		{"no privileges", func(*testing.T, *Config) {}, []uint{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, []string{"CAP_BPF"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := n.cfg
			c.change(t, &cfg)
			network, err := New(cfg)
			must(t, err)
			ready := false
			onLostThread(func() {
				if err = dropCapabilities(c.drop); err == nil {
					err = network.runDataplane(t.Context(), func() { ready = true })
				}
			})
			expectText(t, err, c.want...)
			if ready {
				t.Error("it said that it was ready")
			}
			if got, err := loader.Attached(cfg.BPFDir); err != nil || len(got) > 0 {
				t.Errorf("left attached: %v, %v", got, err)
			}
			if got, err := loader.Filters(); err != nil || len(got) > 0 {
				t.Errorf("left attached: %v, %v", got, err)
			}
			must(t, Cleanup(n.cfg))
		})
	}
	for name, filters := range map[string]bool{"no cgroup2 for host processes": false, "nor tcx": true} {
		t.Run(name, func(t *testing.T) { withoutCgroup(t, n, filters) })
	}
}

func withoutCgroup(t *testing.T, n *testNode, filters bool) {
	n.cfg.HostCgroup, n.cfg.forceFilter = n.dir, filters // a directory, but of no cgroup
	n.start("dataplane")
	s := n.network.Status()
	if notice := s.Notices["host-services"]; !strings.Contains(notice, "cgroup") {
		t.Errorf("the notice is %q", notice)
	}
	for _, name := range s.Attached {
		if strings.HasPrefix(name, "cgroup-") {
			t.Errorf("%s is attached all the same", name)
		}
	}
	slices.Sort(s.Attached)
	if want := []string{"eth0-egress", "eth0-egress-ipv6", "eth0-ingress", "eth0-ingress-ipv6"}; !slices.Equal(s.Attached, want) {
		t.Errorf("pods do not need the cgroup, but attached are %v, want %v", s.Attached, want)
	}
	n.stop()
	must(t, Cleanup(n.cfg))
	if left, err := loader.Filters(); err != nil || len(left) > 0 {
		t.Errorf("left attached: %v, %v", left, err)
	}
}

// onLostThread runs f on a thread that is thrown away with what f did to it.
func onLostThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		f()
	}()
	<-done
}

// dropCapabilities takes some from the calling thread.
func dropCapabilities(which []uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	for _, c := range which {
		set := &have[c/32]
		set.Effective &^= 1 << (c % 32)
		set.Permitted &^= 1 << (c % 32)
		set.Inheritable &^= 1 << (c % 32)
	}
	return unix.Capset(&header, &have[0])
}
