package settings

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func input() Input {
	return Input{
		Cluster: &v1alpha1.Cluster{}, Machine: &v1alpha1.Machine{},
		NodeIP: netip.MustParseAddr("192.0.2.7"), ClusterDNS: netip.MustParseAddr("10.96.0.10"),
		ResolvConf: "/run/resolv.conf", CgroupRoot: "/bothy-n1", RootDir: "/var/lib/kubelet",
		CertFile: "c.pem", KeyFile: "k.pem", ClientCAFile: "ca.pem", RuntimeSocket: "/run/c.sock",
		MaxOpenFiles: 20000, Disk: 16 << 30, Memory: 2 << 30,
	}
}

func TestNobodyUnknownGetsIn(t *testing.T) {
	c := Configuration(input())
	if *c.Authentication.Anonymous.Enabled || !*c.Authentication.Webhook.Enabled || c.Authorization.Mode != kubeletv1beta1.KubeletAuthorizationModeWebhook {
		t.Errorf("authentication %+v, authorization %+v", c.Authentication, c.Authorization)
	}
	if c.ReadOnlyPort != 0 || *c.HealthzPort != 0 || *c.EnableProfilingHandler || *c.EnableSystemLogHandler || *c.EnableDebugFlagsHandler {
		t.Error("a port or handler is open that nobody needs")
	}
	if c.Address != "192.0.2.7" || c.TLSMinVersion != "VersionTLS12" || len(c.TLSCipherSuites) == 0 {
		t.Errorf("serves on %s with %s and %v", c.Address, c.TLSMinVersion, c.TLSCipherSuites)
	}
	for _, s := range c.TLSCipherSuites {
		if !strings.HasPrefix(s, "TLS_ECDHE_") || strings.Contains(s, "CBC") {
			t.Errorf("weak cipher suite %s", s)
		}
	}
	if !*c.SeccompDefault {
		t.Error("containers run without seccomp by default")
	}
}

func TestCgroupVersions(t *testing.T) {
	in := input()
	if c := Configuration(in); !*c.FailCgroupV1 {
		t.Error("a machine that changes to version 1 goes unnoticed")
	}
	in.CgroupV1 = true
	if c := Configuration(in); *c.FailCgroupV1 || c.CgroupDriver != "cgroupfs" || c.CgroupRoot != "/bothy-n1" {
		t.Errorf("version 1: %+v", c)
	}
}

func TestOpenFilesStayBelowTheHardLimit(t *testing.T) {
	for limit, want := range map[int64]int64{20000: 20000, 1 << 40: upstreamMaxOpenFiles} {
		in := input()
		in.MaxOpenFiles = limit
		if got := Configuration(in).MaxOpenFiles; got != want {
			t.Errorf("hard limit %d: %d, want %d", limit, got, want)
		}
	}
}

func TestHeartbeatMayFailOnce(t *testing.T) {
	const grace = 50 * time.Second // kube-controller-manager --node-monitor-grace-period
	renew := time.Duration(Configuration(input()).NodeLeaseDurationSeconds) * time.Second / 4
	if renew*2 >= grace {
		t.Errorf("a heartbeat every %v: one that is lost makes the node unknown after %v", renew, grace)
	}
}

func TestClusterAndMachineSettings(t *testing.T) {
	in := input()
	if c := Configuration(in); c.MaxPods != 110 || c.ClusterDomain != "cluster.local" || len(c.RegisterWithTaints) != 0 {
		t.Errorf("defaults: %d pods, domain %s, taints %v", c.MaxPods, c.ClusterDomain, c.RegisterWithTaints)
	}
	in.Cluster.Spec.Node.MaxPods = 20
	in.Cluster.Spec.Node.Labels = map[string]string{"site": "a", "both": "cluster"}
	in.Cluster.Spec.Network.DNS.Domain = "site.example"
	in.Machine.Spec.Labels = map[string]string{"rack": "1", "both": "machine", "node-role.kubernetes.io/edge": ""}
	in.Machine.Spec.Taints = []v1alpha1.Taint{{Key: "gpu", Value: "x", Effect: "NoSchedule"}}
	c := Configuration(in)
	if c.MaxPods != 20 || c.ClusterDomain != "site.example" || c.ClusterDNS[0] != "10.96.0.10" || *c.ResolverConfig != "/run/resolv.conf" {
		t.Errorf("%d pods, domain %s, DNS %v, resolv.conf %s", c.MaxPods, c.ClusterDomain, c.ClusterDNS, *c.ResolverConfig)
	}
	if len(c.RegisterWithTaints) != 1 || c.RegisterWithTaints[0].ToString() != "gpu=x:NoSchedule" {
		t.Errorf("taints %v", c.RegisterWithTaints)
	}
	want := map[string]string{"site": "a", "rack": "1", "both": "machine"}
	if diff := cmp.Diff(want, Labels(in)); diff != "" {
		t.Error(diff)
	}
}

func TestReservedForTheNodeItself(t *testing.T) {
	for _, tc := range []struct {
		role   string
		memory uint64
		want   map[string]string
	}{
		{"control-plane", 8 << 30, map[string]string{"memory": "512Mi", "cpu": "200m"}},
		{"worker", 8 << 30, map[string]string{"memory": "192Mi", "cpu": "100m"}},
		{"control-plane", 1 << 30, map[string]string{"memory": "256Mi", "cpu": "200m"}},
	} {
		in := input()
		in.Machine.Spec.Role, in.Memory = tc.role, tc.memory
		if diff := cmp.Diff(tc.want, reserved(in)); diff != "" {
			t.Errorf("%s with %d MiB: %s", tc.role, tc.memory>>20, diff)
		}
	}
}

func TestDisksOfAllSizes(t *testing.T) {
	for _, tc := range []struct {
		disk     uint64
		free     string
		gc       int32
		whatFull string
	}{
		{1 << 30, "256Mi", 72, "a small eMMC keeps its minimum"},
		{16 << 30, "1638Mi", 88, "a tenth"},
		{500 << 30, "2048Mi", 96, "never more than 2 GiB"},
	} {
		in := input()
		in.Disk = tc.disk
		c := Configuration(in)
		if c.EvictionHard["nodefs.available"] != tc.free || c.EvictionHard["imagefs.available"] != tc.free {
			t.Errorf("%d GiB: eviction below %s, want %s: %s", tc.disk>>30, c.EvictionHard["nodefs.available"], tc.free, tc.whatFull)
		}
		if *c.ImageGCHighThresholdPercent != tc.gc || *c.ImageGCLowThresholdPercent >= tc.gc {
			t.Errorf("%d GiB: images collected between %d and %d %%, want from %d", tc.disk>>30, *c.ImageGCLowThresholdPercent, *c.ImageGCHighThresholdPercent, tc.gc)
		}
	}
}

func TestStandaloneNeedsNoAPIServer(t *testing.T) {
	in := input()
	in.Standalone, in.StaticPodDir = true, "/pods"
	c := Configuration(in)
	if *c.Authentication.Webhook.Enabled || c.Authorization.Mode == kubeletv1beta1.KubeletAuthorizationModeWebhook || c.StaticPodPath != "/pods" {
		t.Errorf("%+v %+v %s", c.Authentication, c.Authorization, c.StaticPodPath)
	}
	if *c.Authentication.Anonymous.Enabled {
		t.Error("anonymous callers may do everything")
	}
}
