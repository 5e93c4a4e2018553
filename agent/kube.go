package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap"
	"github.com/bothy-os/bothy/bootstrap/apiproxy"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/images"
	"github.com/bothy-os/bothy/images/layer"
	"github.com/bothy-os/bothy/internal/logfile"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node"
	"github.com/bothy-os/bothy/node/machine"
	"github.com/bothy-os/bothy/node/metrics"
	"github.com/bothy-os/bothy/node/volumes"
	"github.com/bothy-os/bothy/os/boot"
)

// metricsServing is the certificate of the metrics API.
const metricsServing = "metrics-serving"

// RunKube is the life of `bothy kube`. It returns when ctx ends, or with the
// error of an upstream component that ended: those keep state in the process
// and cannot be started twice in it, so that the agent starts a new process.
func RunKube(ctx context.Context) error {
	file := logfile.Open(filepath.Join(boot.StateDir, "logs"), "kube")
	defer file.Close()
	log := file.Logger(slog.LevelInfo)
	useUpstreamLog(file)
	err := runKube(ctx, log)
	if err != nil {
		log.Error("bothy kube ends", "err", err)
		_ = os.WriteFile(kubeErrorFile, []byte(err.Error()), 0o600) // the log has it too
	}
	return err
}

// kubeErrorFile is where the child leaves the reason of its end for the agent,
// so that `bothy status` shows it.
const kubeErrorFile = boot.RunDir + "/kube.error"

func runKube(ctx context.Context, log *slog.Logger) error {
	config := &KubeConfig{}
	err := json.NewDecoder(os.Stdin).Decode(config)
	if errors.Is(err, io.EOF) {
		return nil // the agent ended before it had settings for us
	}
	if err != nil {
		return fmt.Errorf("read the settings from standard input, where the agent puts them: %w", err)
	}
	k, err := newKube(config, log)
	if err != nil {
		return err
	}
	return k.sup.Run(ctx)
}

// kubeProcess is this process at work.
type kubeProcess struct {
	config *KubeConfig
	node   *node.Node
	// controlPlane is nil on a worker.
	controlPlane *bootstrap.ControlPlane
	guard        imageGuard
	images       *images.Images
	sup          *supervise.Supervisor
}

func newKube(config *KubeConfig, log *slog.Logger) (*kubeProcess, error) {
	k := &kubeProcess{config: config, guard: newImageGuard(config, log)}
	nc := nodeConfig(config, log)
	nc.ContainerdPlugins = k.guard.guard.Plugins
	var err error
	if k.node, err = node.New(nc); err != nil {
		return nil, err
	}
	images.GuardLayers(layer.Limits{})
	im := images.New(images.Config{
		Socket: k.node.ContainerdSocket(), Layouts: config.ImageLayouts, First: node.SandboxImage, Store: nodeImages(),
		Mirror: newMirror(config, k.guard),
		Judge:  k.guard.judgeImport, JudgedBy: filepath.Base(imagePolicyFile), After: []string{node.Containerd}, Log: log.With("wing", "images"),
	})
	k.images = im
	components := []supervise.Component{k.statusComponent(), memoryComponent()}
	if config.worker() {
		components = append(components, apiproxy.New(apiProxyAddress(config.Cluster), config.APIServers, log).Component())
	} else {
		bc := bootstrapConfig(config, log)
		bc.PodImages = k.guard.guard.Admit
		bc.SystemObjects = slices.Concat(bc.SystemObjects, []byte("\n---\n"), k.node.SystemObjects())
		if k.controlPlane, err = bootstrap.New(bc); err != nil {
			return nil, err
		}
		components = append(components, k.controlPlane.Components()...)
	}
	components = slices.Concat(components, k.node.Components(), im.Components())
	k.sup, err = supervise.New(log, components...)
	return k, err
}

// apiProxyAddress is the API server's address for everything on a worker.
func apiProxyAddress(cluster *v1alpha1.Cluster) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(cluster.Spec.ControlPlane.Port))
}

// statusComponent answers the agent.
func (k *kubeProcess) statusComponent() supervise.Component {
	return supervise.Component{Name: "kube-status", Run: func(ctx context.Context, ready func()) error {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
			changed := func() <-chan struct{} {
				return firstOf(r.Context(), []<-chan struct{}{k.sup.Changed(), k.guard.gate.Changed(), k.images.Changed()})
			}
			statusHandler(k.status, changed)(w, r)
		})
		mux.HandleFunc("GET /v1/images/policy", k.guard.servePolicy)
		mux.HandleFunc("GET /v1/images/verdict", k.guard.serveVerdict)
		mux.HandleFunc("GET /v1/profile/{kind}", profileHandler)
		return serveSocket(ctx, kubeSocket, mux, ready)
	}}
}

func (k *kubeProcess) status() KubeStatus {
	policy := k.guard.gate.Status()
	st := KubeStatus{PID: os.Getpid(), Hash: k.config.Hash(), Components: k.sup.Status(), Kubelet: k.node.Status(), Images: &policy, Imports: k.images.Status()}
	if k.controlPlane != nil {
		cp := k.controlPlane.Status()
		st.ControlPlane = &cp
	}
	return st
}

func bootstrapConfig(c *KubeConfig, log *slog.Logger) bootstrap.Config {
	address, _ := netip.ParseAddr(c.NodeIP) // checked by bootstrap.New
	return bootstrap.Config{
		StateDir: boot.StateDir, RunDir: boot.RunDir, NodeName: c.NodeName, NodeIP: address, SecondIP: c.secondIP(), Cluster: c.Cluster,
		Identities: []bootstrap.Identity{
			{Name: reconcilerIdentity, User: "bothy:reconciler", Groups: []string{"system:masters"}},
			{Name: netdataIdentity, User: "bothy:netdata"},
			{Name: dnsIdentity, User: "bothy:dns"},
			{Name: metricsIdentity, User: "bothy:metrics"},
			{Name: volumesIdentity, User: volumes.User},
			{Name: machineIdentity, User: machine.User},
			{Name: statusIdentity, User: "bothy:status"},
		},
		Serving:       []bootstrap.ServingCertificate{{Name: metricsServing, DNSNames: []string{metrics.ServerName}, IPs: []netip.Addr{address}}},
		SystemObjects: c.SystemObjects,
		Log:           log.With("wing", "bootstrap"),
	}
}

func nodeConfig(c *KubeConfig, log *slog.Logger) node.Config {
	address, _ := netip.ParseAddr(c.NodeIP)                       // checked by node.New
	dns, _ := netip.ParseAddr(c.Cluster.Spec.Network.DNS.Address) // checked when the Cluster was decoded
	p := paths.Paths{StateDir: boot.StateDir, RunDir: boot.RunDir}
	n := node.Config{
		StateDir: boot.StateDir, RunDir: boot.RunDir, BinDir: c.BinDir,
		NodeName: c.NodeName, NodeIP: address, SecondIP: c.secondIP(), CgroupRoot: c.CgroupRoot,
		Cluster: c.Cluster, Machine: c.Machine,
		ClusterDNS: dns, ResolvConf: c.ResolvConf,
		CAFile:            p.ClusterCA(),
		Kubelet:           node.Identity{Kubeconfig: p.KubeletKubeconfig(), CertFile: p.KubeletServing(), KeyFile: p.KubeletServing()},
		Metrics:           node.Identity{Kubeconfig: p.Kubeconfig(metricsIdentity), CertFile: p.Certificate(metricsServing), KeyFile: p.Certificate(metricsServing)},
		VolumesKubeconfig: p.Kubeconfig(volumesIdentity),
		MachineKubeconfig: p.Kubeconfig(machineIdentity),
		After:             node.After{Certificates: bootstrap.ComponentPKI, API: bootstrap.ComponentAPIServer, Objects: bootstrap.ComponentSystemObjects},
		Log:               log.With("wing", "node"),
	}
	if c.worker() {
		// The control plane serves metrics, and keeps Node objects.
		n.Metrics, n.MachineKubeconfig = node.Identity{}, ""
		n.After = node.After{Certificates: apiproxy.ComponentName}
	}
	return n
}
