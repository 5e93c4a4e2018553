package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/version"
	"github.com/bothy-os/bothy/os/boot"
)

// KubeConfig is everything `bothy kube` needs to know. The agent writes it;
// two equal values mean that a running child can be kept.
type KubeConfig struct {
	NodeName     string            `json:"nodeName"`
	NodeIP       string            `json:"nodeIP"`
	BinDir       string            `json:"binDir"`
	CgroupRoot   string            `json:"cgroupRoot"`
	ResolvConf   string            `json:"resolvConf"`
	ImageLayouts []string          `json:"imageLayouts,omitempty"`
	Cluster      *v1alpha1.Cluster `json:"cluster"`
	Machine      *v1alpha1.Machine `json:"machine"`
	// SystemObjects are manifests of the wings that live in the agent.
	SystemObjects []byte `json:"systemObjects,omitempty"`
	// Version keeps a child of another build from being adopted.
	Version string `json:"version"`
}

func newKubeConfig(env *boot.Environment, site *site, systemObjects []byte) *KubeConfig {
	return &KubeConfig{
		NodeName: env.Name, NodeIP: env.Address, BinDir: env.BinDir,
		CgroupRoot: env.CgroupRoot, ResolvConf: env.ResolvConfFile(), ImageLayouts: env.ImageLayouts,
		Cluster: site.cluster, Machine: site.machine, SystemObjects: systemObjects,
		Version: version.Version + "+" + version.Commit,
	}
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
