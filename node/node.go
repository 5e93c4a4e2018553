package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/containerd/plugin"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node/kubelet"
	"github.com/bothy-os/bothy/node/kubelet/settings"
	"github.com/bothy-os/bothy/node/machine"
	"github.com/bothy-os/bothy/node/metrics"
	"github.com/bothy-os/bothy/node/runtime"
	"github.com/bothy-os/bothy/node/volumes"
)

// Names of the components, for other components' After.
const (
	Containerd = runtime.ComponentName
	Kubelet    = kubelet.ComponentName
	MetricsAPI = metrics.ComponentName
	Volumes    = volumes.ComponentName
)

// SandboxImage is the name of the pause image unless Config says otherwise.
const SandboxImage = "bothy.local/pause:1"

// Config describes one node.
type Config struct {
	// StateDir survives reboots, RunDir does not; both outlive this process.
	StateDir, RunDir string
	// BinDir holds runc, containerd-shim-runc-v2 and bothy-cni.
	BinDir string
	// KubeletDir is the kubelet's directory. Default /var/lib/kubelet, the
	// path that storage drivers and device plugins expect.
	KubeletDir string
	// NodeName and NodeIP identify the node. NodeIP is not a loopback address.
	NodeName string
	NodeIP   netip.Addr
	// SecondIP is the node's address of the other family; not valid if there is none.
	SecondIP netip.Addr
	// CgroupRoot exists in every cgroup hierarchy; pods live below it. On
	// version 1 its cpuset.cpus and cpuset.mems are filled.
	CgroupRoot string
	// Cluster and Machine are the accepted configuration, with defaults.
	Cluster *v1alpha1.Cluster
	Machine *v1alpha1.Machine
	// ClusterDNS is the address of cluster DNS.
	ClusterDNS netip.Addr
	// ResolvConf is the resolv.conf for pods that do not use cluster DNS, and
	// the source of search domains for those that do.
	ResolvConf string
	// SandboxImage is the full name of the pause image. Default SandboxImage.
	SandboxImage string

	// ContainerdPlugins, if set, changes the plugins that containerd is made of.
	ContainerdPlugins func([]plugin.Registration) ([]plugin.Registration, error)

	// CAFile verifies clients of the kubelet, and kubelets.
	CAFile string
	// Kubelet is the kubelet's identity and serving certificate, valid for
	// NodeIP and NodeName.
	Kubelet Identity
	// Metrics is the same for the metrics API; its certificate is valid for
	// metrics.ServerName. The zero value leaves the metrics API out, as on a
	// worker.
	Metrics Identity
	// VolumesKubeconfig is the identity of user volumes.User. Empty leaves the
	// provisioner out of this process.
	VolumesKubeconfig string
	// MachineKubeconfig is the identity of user machine.User. Empty leaves
	// labels and taints to the kubelet's registration.
	MachineKubeconfig string

	// After names components of this process that others have to wait for.
	After After
	// StaticPodDir holds manifests of pods that run without an API server.
	// Empty, as on every normal node, for none.
	StaticPodDir string
	// Standalone runs the kubelet without an API server, for recovery and tests.
	Standalone bool
	Log        *slog.Logger
}

// Identity is what a part needs to talk and to listen. All files are watched.
type Identity struct {
	Kubeconfig        string
	CertFile, KeyFile string
}

// After names components of other wings in the same process. An empty name
// means that the component is elsewhere, or its work already done.
type After struct {
	// Certificates is ready when the files that Config names exist.
	Certificates string
	// API is ready when the API server answers with RBAC in place; Objects,
	// when SystemObjects are applied. Only the metrics API and volumes wait.
	API, Objects string
}

// Node is one Kubernetes node.
type Node struct {
	cfg     Config
	volumes *volumes.Volumes
}

// New checks the configuration. Nothing happens until the components run.
func New(cfg Config) (*Node, error) {
	if cfg.KubeletDir == "" {
		cfg.KubeletDir = "/var/lib/kubelet"
	}
	if cfg.SandboxImage == "" {
		cfg.SandboxImage = SandboxImage
	}
	if err := check(cfg); err != nil {
		return nil, fmt.Errorf("node configuration: %w", err)
	}
	n := &Node{cfg: cfg}
	if cfg.VolumesKubeconfig != "" {
		n.volumes = volumes.New(volumes.Config{
			NodeName: cfg.NodeName, Dir: filepath.Join(cfg.StateDir, "volumes"),
			Kubeconfig: cfg.VolumesKubeconfig, Local: cfg.Cluster.Spec.Storage.Local, Worker: cfg.Machine.IsWorker(),
			After: named(cfg.After.Certificates, cfg.After.API, cfg.After.Objects), Log: cfg.Log,
		})
	}
	return n, nil
}

func check(cfg Config) error {
	for _, f := range []struct{ name, value string }{
		{"StateDir", cfg.StateDir},
		{"RunDir", cfg.RunDir},
		{"BinDir", cfg.BinDir},
		{"NodeName", cfg.NodeName},
		{"CgroupRoot", cfg.CgroupRoot},
		{"ResolvConf", cfg.ResolvConf},
		{"CAFile", cfg.CAFile},
	} {
		if f.value == "" {
			return fmt.Errorf("%s is not set", f.name)
		}
	}
	if cfg.Cluster == nil || cfg.Machine == nil || cfg.Log == nil {
		return errors.New("one of Cluster, Machine and Log is not set")
	}
	if !cfg.NodeIP.IsValid() || cfg.NodeIP.IsLoopback() || cfg.NodeIP.IsUnspecified() {
		return fmt.Errorf("node address %s: has to be one that other machines could reach, not loopback", cfg.NodeIP)
	}
	if cfg.Kubelet.Kubeconfig == "" && !cfg.Standalone {
		return errors.New("Kubelet.Kubeconfig is not set")
	}
	return nil
}

// ContainerdSocket is where containerd listens.
func (n *Node) ContainerdSocket() string { return filepath.Join(n.cfg.RunDir, "containerd.sock") }

// CNIConfDir is where containerd looks for the CNI configuration.
func (n *Node) CNIConfDir() string { return filepath.Join(n.cfg.RunDir, "cni", "net.d") }

// Components returns the parts of the node in the order of their start.
func (n *Node) Components() []supervise.Component {
	cfg := n.cfg
	components := []supervise.Component{
		runtime.Component(n.runtimeConfig(), nil, cfg.Log),
		kubelet.Component(n.kubeletConfig(), append(named(cfg.After.Certificates), Containerd), cfg.Log),
	}
	if cfg.Metrics.Kubeconfig != "" {
		components = append(components, metrics.Component(n.metricsConfig(), named(cfg.After.Certificates, cfg.After.API, cfg.After.Objects)))
	}
	if n.volumes != nil {
		components = append(components, n.volumes.Components()...)
	}
	if cfg.MachineKubeconfig != "" {
		components = append(components, machine.Component(machine.Config{
			NodeName: cfg.NodeName, Kubeconfig: cfg.MachineKubeconfig, Cluster: cfg.Cluster, Machine: cfg.Machine,
			After: named(cfg.After.Certificates, cfg.After.API, cfg.After.Objects), Log: cfg.Log,
		}))
	}
	return components
}

// SystemObjects returns what the API server must hold for the node's parts to
// work, as a multi-document manifest. The APIService in it has no caBundle: it
// is for the one who applies the manifest to fill in the cluster's CA.
func (n *Node) SystemObjects() []byte {
	out := slices.Concat(volumes.SystemObjects(), []byte("---\n"), machine.SystemObjects())
	if n.cfg.Metrics.Kubeconfig == "" {
		return out
	}
	return slices.Concat(out, []byte("---\n"), metrics.SystemObjects(n.cfg.NodeName, n.cfg.NodeIP))
}

// Status is what the node knows beyond the states of its components.
type Status struct {
	// Volumes is nil when the provisioner runs elsewhere.
	Volumes *volumes.Status `json:"volumes,omitempty"`
}

// Status returns the node's status.
func (n *Node) Status() Status {
	var st Status
	if n.volumes != nil {
		v := n.volumes.Status()
		st.Volumes = &v
	}
	return st
}

func (n *Node) runtimeConfig() runtime.Config {
	cfg := n.cfg
	return runtime.Config{
		Root:         filepath.Join(cfg.StateDir, "containerd"),
		State:        filepath.Join(cfg.RunDir, "containerd"),
		Socket:       n.ContainerdSocket(),
		BinDir:       cfg.BinDir,
		CNIConfDir:   n.CNIConfDir(),
		RegistryDir:  filepath.Join(cfg.StateDir, "images", "registries"),
		SandboxImage: cfg.SandboxImage,
		Plugins:      cfg.ContainerdPlugins,
	}
}

func (n *Node) kubeletConfig() kubelet.Config {
	cfg := n.cfg
	return kubelet.Config{
		Input: settings.Input{
			Cluster: cfg.Cluster, Machine: cfg.Machine, NodeIP: cfg.NodeIP,
			ClusterDNS: cfg.ClusterDNS, ResolvConf: cfg.ResolvConf, CgroupRoot: cfg.CgroupRoot,
			RootDir:  cfg.KubeletDir,
			CertFile: cfg.Kubelet.CertFile, KeyFile: cfg.Kubelet.KeyFile, ClientCAFile: cfg.CAFile,
			RuntimeSocket: n.ContainerdSocket(),
			StaticPodDir:  cfg.StaticPodDir, Standalone: cfg.Standalone,
		},
		NodeName: cfg.NodeName, SecondIP: cfg.SecondIP, Kubeconfig: cfg.Kubelet.Kubeconfig, StateDir: cfg.StateDir, CNIConfDir: n.CNIConfDir(),
	}
}

func (n *Node) metricsConfig() metrics.Config {
	cfg := n.cfg
	return metrics.Config{
		NodeIP: cfg.NodeIP, NodeName: cfg.NodeName, Kubeconfig: cfg.Metrics.Kubeconfig,
		CertFile: cfg.Metrics.CertFile, KeyFile: cfg.Metrics.KeyFile, CAFile: cfg.CAFile, Log: cfg.Log,
	}
}

// named drops empty names.
func named(names ...string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}
