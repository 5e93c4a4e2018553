package settings

import (
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Port is the kubelet's HTTPS port, the one everybody expects.
const Port = 10250

// Defaults of Cluster.spec.node.
const (
	defaultMaxPods = 110
	defaultDomain  = "cluster.local"
)

// Input is what the configuration follows from.
type Input struct {
	Cluster *v1alpha1.Cluster
	Machine *v1alpha1.Machine
	// NodeIP is where the kubelet listens. Never a loopback address: the API
	// server refuses to proxy logs and exec there.
	NodeIP netip.Addr
	// ClusterDNS is what pods ask for names; ResolvConf is the file that pods
	// with dnsPolicy Default get.
	ClusterDNS netip.Addr
	ResolvConf string
	// CgroupRoot is the cgroup below which pods live, as a path in each
	// hierarchy.
	CgroupRoot string
	// CgroupV1 says that the machine has version 1 (or hybrid) cgroups.
	CgroupV1 bool
	// RootDir is the kubelet's directory.
	RootDir string
	// CertFile, KeyFile and ClientCAFile serve the kubelet's API. All three are
	// watched; replacing them needs no restart.
	CertFile, KeyFile, ClientCAFile string
	// RuntimeSocket is containerd's socket.
	RuntimeSocket string
	// StaticPodDir holds manifests of pods the kubelet runs by itself. Empty
	// for none, as on every normal node: what runs there cannot be seen in Git.
	StaticPodDir string
	// MaxOpenFiles is the hard limit of this process.
	MaxOpenFiles int64
	// Disk and Memory are the sizes of the file system that holds the state
	// directory, and of the machine's memory, in bytes.
	Disk, Memory uint64
	// Standalone runs without an API server, for recovery and tests.
	Standalone bool
}

// upstreamMaxOpenFiles is what the kubelet asks for by default.
const upstreamMaxOpenFiles = 1_000_000

// Configuration returns the kubelet's configuration. Fields that are not set
// keep upstream's defaults.
func Configuration(in Input) *kubeletv1beta1.KubeletConfiguration {
	c := &kubeletv1beta1.KubeletConfiguration{}
	serving(c, in)
	runtime(c, in)
	cgroups(c, in)
	pods(c, in)
	disks(c, in)
	quiet(c)
	return c
}

// serving secures the kubelet's API: certificates for those who call, the API
// server's opinion about what they may do, nothing for strangers, and none of
// the handlers that exist for kubelet developers.
func serving(c *kubeletv1beta1.KubeletConfiguration, in Input) {
	c.Address = in.NodeIP.String()
	c.Port = Port
	c.ReadOnlyPort = 0
	c.HealthzPort = new(int32) // 0: the component's state says it, without a port
	c.TLSCertFile, c.TLSPrivateKeyFile = in.CertFile, in.KeyFile
	c.TLSMinVersion = "VersionTLS12"
	c.TLSCipherSuites = []string{
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	}
	// The control plane renews the files; the kubelet watches them.
	c.RotateCertificates, c.ServerTLSBootstrap = false, false
	c.Authentication.Anonymous.Enabled = ptr(false)
	c.Authentication.X509.ClientCAFile = in.ClientCAFile
	c.Authentication.Webhook.Enabled = ptr(!in.Standalone)
	c.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationModeWebhook
	if in.Standalone {
		// Nobody can be asked, so certificates of the CA are all there is.
		c.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow
	}
	c.EnableProfilingHandler = ptr(false)
	c.EnableDebugFlagsHandler = ptr(false)
	c.EnableSystemLogHandler = ptr(false)
}

func runtime(c *kubeletv1beta1.KubeletConfiguration, in Input) {
	c.ContainerRuntimeEndpoint = "unix://" + in.RuntimeSocket
	c.ImageServiceEndpoint = c.ContainerRuntimeEndpoint
	c.VolumePluginDir = filepath.Join(in.RootDir, "volumeplugins")
	c.StaticPodPath = in.StaticPodDir
	// Raising the hard limit needs CAP_SYS_RESOURCE; the kubelet gives up
	// without it.
	c.MaxOpenFiles = min(upstreamMaxOpenFiles, in.MaxOpenFiles)
	// Services are eBPF programs here: there is no iptables to prepare.
	c.MakeIPTablesUtilChains = ptr(false)
	// True would refuse to start where vm.overcommit_memory, vm.panic_on_oom,
	// kernel.panic or kernel.panic_on_oops differ from what the kubelet wants.
	// On a machine that is also somebody's laptop these are not ours to change.
	c.ProtectKernelDefaults = false
	// A machine with swap is accepted; pods do not get any of it.
	c.FailSwapOn = ptr(false)
	c.MemorySwap.SwapBehavior = "NoSwap"
	// Graceful node shutdown is the kubelet's only through systemd-logind,
	// which a node does not have. Whoever stops the node stops the pods first.
	c.ShutdownGracePeriod = metav1.Duration{}
}

func cgroups(c *kubeletv1beta1.KubeletConfiguration, in Input) {
	c.CgroupDriver = "cgroupfs"
	c.CgroupRoot = in.CgroupRoot
	c.CgroupsPerQOS = ptr(true)
	c.EnforceNodeAllocatable = []string{"pods"}
	// Version 1 is deprecated upstream and works; refusing it would exclude
	// machines that run nothing newer.
	c.FailCgroupV1 = ptr(!in.CgroupV1)
	c.KubeReserved = reserved(in)
	// Enough for any sane workload, and a fork bomb ends here.
	c.PodPidsLimit = ptr(int64(4096))
}

func pods(c *kubeletv1beta1.KubeletConfiguration, in Input) {
	spec := in.Cluster.Spec
	c.MaxPods = int32(spec.Node.MaxPods)
	if c.MaxPods == 0 {
		c.MaxPods = defaultMaxPods
	}
	c.PodsPerCore = 0
	c.ClusterDomain = spec.Network.DNS.Domain
	if c.ClusterDomain == "" {
		c.ClusterDomain = defaultDomain
	}
	if in.ClusterDNS.IsValid() {
		c.ClusterDNS = []string{in.ClusterDNS.String()}
	}
	c.ResolverConfig = ptr(in.ResolvConf)
	c.RegisterWithTaints = taints(in.Machine.Spec.Taints)
	// Every container gets the runtime's seccomp profile unless its pod asks
	// for another one.
	c.SeccompDefault = ptr(true)
}

// quiet keeps an idle node idle, for flash that wears out and batteries that
// run down.
func quiet(c *kubeletv1beta1.KubeletConfiguration) {
	// The kubelet looks at the node's state every ten seconds and reports
	// changes at once; an unchanged state is reported this rarely.
	c.NodeStatusUpdateFrequency = metav1.Duration{Duration: 10 * time.Second}
	c.NodeStatusReportFrequency = metav1.Duration{Duration: 10 * time.Minute}
	// The heartbeat is a write to etcd every quarter of this: 20 s instead of
	// 10 s. The controller-manager calls a node lost after 50 s without one, so
	// that a heartbeat may fail altogether before anybody notices.
	c.NodeLeaseDurationSeconds = 80
	// Sizes of emptyDir volumes are found by walking them.
	c.VolumeStatsAggPeriod = metav1.Duration{Duration: 2 * time.Minute}
	c.ContainerLogMaxSize = "10Mi"
	c.ContainerLogMaxFiles = ptr(int32(3))
}

// Labels are the labels the node registers with: those of the cluster, then
// those of the machine. Upstream's own label names are left out, because a
// kubelet that is told to set one it may not set does not start; the machine
// component sets them.
func Labels(in Input) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, in.Cluster.Spec.Node.Labels)
	maps.Copy(labels, in.Machine.Spec.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return upstreamName(key) })
	return labels
}

func upstreamName(label string) bool {
	domain, _, qualified := strings.Cut(label, "/")
	if !qualified {
		return false
	}
	domain = "." + domain
	return strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io")
}

func taints(in []v1alpha1.Taint) []corev1.Taint {
	var out []corev1.Taint
	for _, t := range in {
		out = append(out, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
	}
	return out
}

func ptr[T any](v T) *T { return &v }
