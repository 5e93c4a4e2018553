package runtime

import (
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
)

// Config says where containerd keeps its things and what it runs.
type Config struct {
	// Root is for what survives a reboot: images, snapshots, metadata.
	Root string
	// State is for what does not: it must be empty after a reboot and kept
	// over restarts of the process, because running containers are found again
	// through it.
	State string
	// Socket is the gRPC socket; the ttrpc socket lies beside it.
	Socket string
	// BinDir holds runc, containerd-shim-runc-v2 and the CNI plugin.
	BinDir string
	// CNIConfDir holds the CNI configuration. It may be empty at start:
	// pods wait until a configuration appears.
	CNIConfDir string
	// RegistryDir holds hosts.toml files for mirrors and private registries, in
	// the layout of containerd's "registry configuration" documentation.
	RegistryDir string
	// SandboxImage is the full name of the pause image.
	SandboxImage string
	// Plugins, if set, gets the plugins that containerd is made of, and returns
	// those to make it of instead. An error keeps containerd from starting.
	Plugins func([]plugin.Registration) ([]plugin.Registration, error)
}

// machine is what configuration depends on beside the operator's wishes.
type machine struct {
	// snapshotter is overlayfs, or native where that does not work.
	snapshotter string
	// canLowerOOMScore is false without CAP_SYS_RESOURCE: then a container
	// cannot be protected more than this process is.
	canLowerOOMScore bool
}

// Plugins by containerd's names.
const (
	grpcServer   = "io.containerd.server.v1.grpc"
	ttrpcServer  = "io.containerd.server.v1.ttrpc"
	criService   = "io.containerd.grpc.v1.cri"
	criImages    = "io.containerd.cri.v1.images"
	criRuntime   = "io.containerd.cri.v1.runtime"
	overlayfs    = "overlayfs"
	native       = "native"
	snapshotters = "io.containerd.snapshotter.v1."
)

// serverConfig is containerd's whole configuration.
func (c Config) serverConfig(m machine) *config.Config {
	return &config.Config{
		Version:         version.ConfigVersion,
		Root:            c.Root,
		State:           c.State,
		DisabledPlugins: disabledPlugins(m.snapshotter),
		// Without these there is no node; containerd would only warn.
		RequiredPlugins: []string{grpcServer, criService, snapshotters + m.snapshotter},
		Plugins: map[string]any{
			grpcServer:  map[string]any{"address": c.Socket},
			ttrpcServer: map[string]any{"address": c.Socket + ".ttrpc"},
			criImages:   c.imageConfig(m),
			criRuntime:  c.runtimeConfig(m),
			criService:  serviceConfig(),
		},
	}
}

func (c Config) imageConfig(m machine) map[string]any {
	return map[string]any{
		"snapshotter":   m.snapshotter,
		"pinned_images": map[string]any{"sandbox": c.SandboxImage},
		"registry":      map[string]any{"config_path": c.RegistryDir},
		// Sizes of snapshots, in seconds. The kubelet asks for them to decide
		// about image garbage collection, which runs every five minutes.
		"stats_collect_period": 60,
	}
}

func (c Config) runtimeConfig(m machine) map[string]any {
	return map[string]any{
		"enable_selinux":         false,
		"restrict_oom_score_adj": !m.canLowerOOMScore,
		// Checkpointing needs the criu program, which is not part of a node.
		"enable_criu": false,
		// The default wakes up once per second and asks every shim. The kubelet
		// takes CPU figures from the cgroups itself; these serve crictl only.
		"stats_collect_period":   "30s",
		"stats_retention_period": "2m",
		"containerd": map[string]any{
			"default_runtime_name": "runc",
			"runtimes": map[string]any{"runc": map[string]any{
				"runtime_type": "io.containerd.runc.v2",
				// Absolute, so that nothing is ever found through PATH.
				"runtime_path": filepath.Join(c.BinDir, "containerd-shim-runc-v2"),
				"options": map[string]any{
					"BinaryName":    filepath.Join(c.BinDir, "runc"),
					"SystemdCgroup": false,
				},
			}},
		},
		"cni": map[string]any{
			"bin_dirs": []string{c.BinDir},
			"conf_dir": c.CNIConfDir,
			// Sets the loopback interface up without a plugin of its own.
			"use_internal_loopback": true,
		},
	}
}

// serviceConfig keeps the CRI off TCP. Its streaming server, which exec, logs
// and port-forward use, listens on loopback only: the kubelet is its client.
func serviceConfig() map[string]any {
	return map[string]any{
		"disable_tcp_service":   true,
		"stream_server_address": "127.0.0.1",
		"stream_server_port":    "0",
	}
}

// disabledPlugins are those a node does not use: each would cost memory, a
// probe of the kernel or a warning at start.
func disabledPlugins(snapshotter string) []string {
	disabled := []string{
		"io.containerd.differ.v1.erofs",
		"io.containerd.image-verifier.v1.bindir",
		"io.containerd.internal.v1.opt",
		"io.containerd.internal.v1.tracing",
		// These register gRPC collectors in Prometheus' global registry, where
		// the embedded etcd has its own of the same name: whoever comes second
		// panics.
		"io.containerd.metrics.v1.grpc-otel",
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.monitor.container.v1.restart",
		"io.containerd.monitor.task.v1.cgroups",
		"io.containerd.mount-handler.v1.erofs",
		"io.containerd.nri.v1.nri",
		"io.containerd.tracing.processor.v1.otlp",
	}
	for _, s := range []string{"blockfile", "devmapper", "erofs", "zfs", overlayfs, native} {
		if s != snapshotter {
			disabled = append(disabled, snapshotters+s)
		}
	}
	return disabled
}
