package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node/internal/listening"
	"github.com/bothy-os/bothy/node/internal/quietlog"
	"github.com/bothy-os/bothy/node/kubelet/settings"
)

// ComponentName is the name of the kubelet component.
const ComponentName = "kubelet"

// Config is what the kubelet needs beside its settings.
type Config struct {
	settings.Input
	// NodeName is the name of the Node object.
	NodeName string
	// SecondIP is the node's address of the other family; not valid if there is none. The
	// kubelet does not listen there.
	SecondIP netip.Addr
	// Kubeconfig is the kubelet's identity at the API server. It is read at
	// start; the certificate files it names are watched. Empty with
	// Input.Standalone.
	Kubeconfig string
	// CNIConfDir is where the network's configuration appears.
	CNIConfDir string
	// StateDir is the directory whose file system decides about eviction.
	StateDir string
}

// stopGrace is short because the kubelet keeps nothing that it would have to
// write at its end.
const stopGrace = time.Second

// networkPatience is how long the kubelet's start is held back for the network.
// It asks the runtime about the network only every five seconds: found too
// early, all pods of the node wait for the next time.
const networkPatience = 3 * time.Second

// Component runs the kubelet. It is ready when its API answers, which does not
// need an API server.
func Component(cfg Config, after []string, log *slog.Logger) supervise.Component {
	return supervise.Component{
		Name:    ComponentName,
		After:   after,
		Restart: supervise.RestartNever,
		Grace:   stopGrace,
		Run: func(ctx context.Context, ready func()) error {
			return run(ctx, cfg, log, ready)
		},
	}
}

func run(ctx context.Context, cfg Config, log *slog.Logger, ready func()) error {
	if err := measure(&cfg); err != nil {
		return err
	}
	if err := makeDirectories(cfg); err != nil {
		return err
	}
	// The kubelet is talkative; what an operator needs is on the Node object
	// and in events.
	ctx = quietlog.Context(ctx, log, ComponentName, harmless()...)
	if !cfg.Standalone {
		awaitNetwork(ctx, cfg.CNIConfDir)
	}
	server, err := kubeletServer(cfg)
	if err != nil {
		return err
	}
	deps, err := dependencies(ctx, cfg, server)
	if err != nil {
		return err
	}
	go func() {
		if listening.Wait(ctx, net.JoinHostPort(cfg.NodeIP.String(), strconv.Itoa(settings.Port))) == nil {
			ready()
		}
	}()
	if err := kubeletapp.Run(ctx, server, deps, utilfeature.DefaultFeatureGate); err != nil {
		return fmt.Errorf("run the kubelet: %w", err)
	}
	return nil
}

// awaitNetwork returns when there is a network configuration, or when that
// takes too long: the kubelet itself says then what is missing.
func awaitNetwork(ctx context.Context, confDir string) {
	ctx, cancel := context.WithTimeout(ctx, networkPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, _ := filepath.Glob(filepath.Join(confDir, "*.conflist")); len(found) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// measure fills in what the settings need to know about the machine.
func measure(cfg *Config) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	cfg.MaxOpenFiles = int64(min(limit.Max, 1<<62))

	var fs unix.Statfs_t
	if err := unix.Statfs(cfg.StateDir, &fs); err != nil {
		return fmt.Errorf("measure file system of %s: %w", cfg.StateDir, err)
	}
	cfg.Disk = fs.Blocks * uint64(fs.Bsize)

	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("measure memory: %w", err)
	}
	cfg.Memory = info.Totalram * uint64(info.Unit)

	var cg unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &cg); err != nil {
		return fmt.Errorf("look at /sys/fs/cgroup: %w; the node needs cgroups mounted there", err)
	}
	cfg.CgroupV1 = cg.Type != unix.CGROUP2_SUPER_MAGIC
	return nil
}

func makeDirectories(cfg Config) error {
	dirs := []string{cfg.RootDir, filepath.Join(cfg.RootDir, "volumeplugins")}
	if cfg.StaticPodDir != "" {
		dirs = append(dirs, cfg.StaticPodDir)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make the kubelet's directory: %w", err)
		}
	}
	return nil
}

// kubeletServer brings the versioned configuration into the form the kubelet
// runs with, filling in upstream's defaults.
func kubeletServer(cfg Config) (*options.KubeletServer, error) {
	scheme, _, err := kubeletscheme.NewSchemeAndCodecs()
	if err != nil {
		return nil, fmt.Errorf("prepare kubelet configuration: %w", err)
	}
	versioned := settings.Configuration(cfg.Input)
	scheme.Default(versioned)
	var internal kubeletconfig.KubeletConfiguration
	if err := scheme.Convert(versioned, &internal, nil); err != nil {
		return nil, fmt.Errorf("convert kubelet configuration: %w", err)
	}

	flags := options.NewKubeletFlags()
	flags.KubeConfig = cfg.Kubeconfig
	flags.HostnameOverride = cfg.NodeName
	flags.NodeIP = cfg.nodeIPs()
	flags.RootDirectory = cfg.RootDir
	flags.CertDirectory = filepath.Join(cfg.RootDir, "pki")
	flags.NodeLabels = settings.Labels(cfg.Input)
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: internal}
	if err := options.ValidateKubeletServer(server); err != nil {
		return nil, fmt.Errorf("kubelet configuration (from cluster.yaml spec.node and the Machine): %w", err)
	}
	return server, nil
}

// nodeIPs is the kubelet's --node-ip.
func (c Config) nodeIPs() string {
	if !c.SecondIP.IsValid() {
		return c.NodeIP.String()
	}
	return c.NodeIP.String() + "," + c.SecondIP.String()
}

func dependencies(ctx context.Context, cfg Config, server *options.KubeletServer) (*kubelet.Dependencies, error) {
	deps, err := kubeletapp.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return nil, fmt.Errorf("prepare the kubelet: %w", err)
	}
	if cfg.Standalone {
		return deps, nil
	}
	if err := addClients(deps, cfg.Kubeconfig, server); err != nil {
		return nil, err
	}
	return deps, nil
}
