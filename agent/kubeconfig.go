package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap"
	"github.com/bothy-os/bothy/bootstrap/apiproxy"
	"github.com/bothy-os/bothy/internal/version"
	"github.com/bothy-os/bothy/os/boot"
)

// KubeConfig is everything `bothy kube` needs to know. The agent writes it;
// two equal values mean that a running child can be kept.
type KubeConfig struct {
	NodeName string `json:"nodeName"`
	// NodeIP is what the API server and others know the node by.
	NodeIP string `json:"nodeIP"`
	// SecondIP is the node's address of the other family, if it has one.
	SecondIP     string   `json:"secondIP,omitempty"`
	BinDir       string   `json:"binDir"`
	CgroupRoot   string   `json:"cgroupRoot"`
	ResolvConf   string   `json:"resolvConf"`
	ImageLayouts []string `json:"imageLayouts,omitempty"`
	// Cluster has defaults for what the agent alone makes use of.
	Cluster *v1alpha1.Cluster `json:"cluster"`
	Machine *v1alpha1.Machine `json:"machine"`
	// APIServers are where a worker finds the control plane; empty on others.
	APIServers []netip.AddrPort `json:"apiServers,omitempty"`
	// SystemObjects are manifests of the wings that live in the agent.
	SystemObjects []byte `json:"systemObjects,omitempty"`
	// Version keeps a child of another build from being adopted.
	Version string `json:"version"`
}

func newKubeConfig(env *boot.Environment, nodeIPs []netip.Addr, site *site, systemObjects []byte) *KubeConfig {
	c := &KubeConfig{
		NodeName: env.Name, NodeIP: nodeIPs[0].String(), BinDir: env.BinDir,
		CgroupRoot: env.CgroupRoot, ResolvConf: env.ResolvConfFile(), ImageLayouts: env.ImageLayouts,
		Cluster: forKube(site.cluster), Machine: site.machine, SystemObjects: systemObjects,
		Version: version.Version + "+" + version.Commit,
	}
	for _, cp := range site.controlPlanes() {
		for _, a := range cp.Addresses {
			c.APIServers = append(c.APIServers, netip.AddrPortFrom(a, uint16(site.cluster.Spec.ControlPlane.Port)))
		}
	}
	if c.worker() {
		c.SystemObjects = nil // the control plane has them
	}
	if len(nodeIPs) > 1 {
		c.SecondIP = nodeIPs[1].String()
	}
	return c
}

// forKube is a Cluster with defaults for what the agent alone makes use of: to change that restarts nothing in the child.
func forKube(cluster *v1alpha1.Cluster) *v1alpha1.Cluster {
	c, plain := *cluster, v1alpha1.NewCluster("")
	c.Metadata = plain.Metadata
	n := &c.Spec.Network
	n.NonMasqueradeCIDRs, n.Encapsulation, n.SpliceNamespaces = nil, plain.Spec.Network.Encapsulation, nil
	n.LoadBalancer, n.DNS.Upstreams = v1alpha1.LoadBalancerSpec{}, nil
	c.Spec.GitOps, c.Spec.Telemetry = plain.Spec.GitOps, plain.Spec.Telemetry
	c.Spec.OS, c.Spec.System = plain.Spec.OS, plain.Spec.System
	return &c
}

func (c *KubeConfig) worker() bool { return c.Machine.IsWorker() }

// filesComponent is the component of the child that has certificates and kubeconfigs ready when it is; on a worker
// they are there before.
func (c *KubeConfig) filesComponent() string {
	if c.worker() {
		return apiproxy.ComponentName
	}
	return bootstrap.ComponentPKI
}

// Hash identifies the value.
func (c *KubeConfig) Hash() string {
	data, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain data always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// secondIP is not valid if there is none.
func (c *KubeConfig) secondIP() netip.Addr {
	a, _ := netip.ParseAddr(c.SecondIP) // written by newKubeConfig
	return a
}
