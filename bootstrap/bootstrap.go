package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/encryption"
	"github.com/bothy-os/bothy/bootstrap/etcd"
	"github.com/bothy-os/bothy/bootstrap/flags"
	"github.com/bothy-os/bothy/bootstrap/objects"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/bootstrap/pki"
)

// Paths names the control plane's files.
type Paths = paths.Paths

// Identity is a user of the API with a certificate and a kubeconfig.
type Identity = pki.Identity

// ServingCertificate is a certificate for a server beside the API server.
type ServingCertificate = pki.ServingCertificate

// Config is what a control plane is made from.
type Config struct {
	// StateDir survives reboots; RunDir is emptied at node start. Both are
	// absolute.
	StateDir, RunDir string
	// NodeName is the name of this node in the cluster.
	NodeName string
	// NodeIP is the address the API server listens on. It is not a loopback
	// address in production: kubelets and pods reach the API through it.
	NodeIP netip.Addr
	// SecondIP is the node's address of the other family, if it has one. The
	// kubelet's certificate and the API server's are valid for it, too.
	SecondIP netip.Addr
	// Cluster is decoded, defaulted and valid.
	Cluster *v1alpha1.Cluster
	// Identities get certificates and kubeconfigs beside the built-in admin,
	// controller-manager, scheduler and kubelet.
	Identities []Identity
	// Serving are certificates for other servers of this node.
	Serving []ServingCertificate
	// SystemObjects is a manifest of objects that the node's own parts need. An
	// APIService in it without caBundle gets the cluster CA's.
	SystemObjects []byte
	// PodImages, if set, is asked at admission about each image of a pod. It
	// returns the image to run instead, or why it may not run.
	PodImages func(ctx context.Context, image string) (string, error)
	Log       *slog.Logger
}

// ControlPlane is a single-node control plane. There is one per process.
type ControlPlane struct {
	cfg     Config
	paths   Paths
	objects []*unstructured.Unstructured
	options *options
	pki     *pki.Store
	etcdCfg etcd.Config

	// What comes into being while running.
	etcd    value[*etcd.Server]
	rotator value[*encryption.Rotator]
	api     value[*apiServer]
}

// New checks everything that can be checked beforehand. It reads and writes no
// file, but takes possession of the process-wide state of the upstream
// components.
func New(cfg Config) (*ControlPlane, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cp := &ControlPlane{cfg: cfg, paths: Paths{StateDir: cfg.StateDir, RunDir: cfg.RunDir}}

	objs, err := objects.Parse(cfg.SystemObjects)
	if err != nil {
		return nil, fmt.Errorf("system objects: %w", err)
	}
	cp.objects = append(objects.System(cfg.NodeIP, cfg.port(), pki.AdminGroup, pki.KubeletClientUser), objs...)

	spec, err := cfg.pkiSpec(cp.paths)
	if err != nil {
		return nil, err
	}
	cp.pki = pki.NewStore(spec, time.Now, cfg.Log)

	cp.etcdCfg = etcd.Config{
		Dir: cp.paths.Etcd(), Socket: cp.paths.EtcdSocket(), HTTPSocket: cp.paths.EtcdHTTPSocket(),
		QuotaMiB: cfg.Cluster.Spec.ControlPlane.Etcd.QuotaMiB, Log: cfg.Log,
	}
	if err := cp.etcdCfg.Validate(); err != nil {
		return nil, err
	}

	args, err := flags.Build(flags.Input{Paths: cp.paths, NodeIP: cfg.NodeIP, Cluster: cfg.Cluster})
	if err != nil {
		return nil, err
	}
	cp.options, err = parseOptions(args, cfg.PodImages)
	return cp, err
}

// Paths returns where the control plane's files are.
func (cp *ControlPlane) Paths() Paths { return cp.paths }

// RotateEncryptionKey replaces the key that encrypts Secrets in etcd and
// rewrites all Secrets. It waits for the API server and returns when the old
// key is gone. Cut short, it is continued at the next start.
func (cp *ControlPlane) RotateEncryptionKey(ctx context.Context) error {
	store, err := cp.secretStore(ctx)
	if err != nil {
		return err
	}
	rotator, err := cp.rotator.wait(ctx)
	if err != nil {
		return err
	}
	return rotator.Rotate(ctx, store, time.Now())
}

func (c *Config) port() int { return c.Cluster.Spec.ControlPlane.Port }

func (c *Config) validate() error {
	switch {
	case c.Log == nil:
		return errors.New("control plane: needs a logger")
	case !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.RunDir):
		return fmt.Errorf("control plane: state directory %q and run directory %q must be absolute paths", c.StateDir, c.RunDir)
	case c.NodeName == "":
		return errors.New("control plane: the node has no name")
	case !c.NodeIP.IsValid() || c.NodeIP.IsUnspecified() || c.NodeIP.IsMulticast():
		return fmt.Errorf("control plane: %v is not the address of a node", c.NodeIP)
	case c.Cluster == nil:
		return errors.New("control plane: there are no cluster settings")
	}
	var problems []error
	for _, p := range c.Cluster.Validate() {
		problems = append(problems, p)
	}
	return errors.Join(problems...)
}

func (c *Config) pkiSpec(p Paths) (pki.Spec, error) {
	spec := pki.Spec{
		Paths:         p,
		Server:        "https://" + netip.AddrPortFrom(c.NodeIP, uint16(c.port())).String(),
		NodeName:      c.NodeName,
		NodeIP:        c.NodeIP,
		SecondIP:      c.SecondIP,
		ClusterDomain: c.Cluster.Spec.Network.DNS.Domain,
		ExtraSANs:     c.Cluster.Spec.ControlPlane.ExtraSANs,
		Identities:    c.Identities,
		Serving:       c.Serving,
	}
	for i, cidr := range c.Cluster.Spec.Network.ServiceCIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return pki.Spec{}, fmt.Errorf("spec.network.serviceCIDRs[%s]: %w", strconv.Itoa(i), err)
		}
		spec.ServiceIPs = append(spec.ServiceIPs, prefix.Masked().Addr().Next())
	}
	return spec, spec.Validate()
}
