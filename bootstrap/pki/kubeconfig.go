package pki

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

// kubeconfig is the part of the kubeconfig format that is needed here.
type kubeconfig struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CAFile string `json:"certificate-authority,omitempty"`
		CAData string `json:"certificate-authority-data,omitempty"`
		// Name is what the server's certificate must be valid for, if that is not its address.
		Name string `json:"tls-server-name,omitempty"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		CertFile string `json:"client-certificate,omitempty"`
		KeyFile  string `json:"client-key,omitempty"`
		CertData string `json:"client-certificate-data,omitempty"`
		KeyData  string `json:"client-key-data,omitempty"`
	} `json:"user"`
}

type namedContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

func newKubeconfig(identity, server string) kubeconfig {
	k := kubeconfig{APIVersion: "v1", Kind: "Config", CurrentContext: "bothy"}
	k.Clusters = []namedCluster{{Name: "bothy"}}
	k.Clusters[0].Cluster.Server = server
	k.Users = []namedUser{{Name: identity}}
	k.Contexts = []namedContext{{Name: "bothy"}}
	k.Contexts[0].Context.Cluster, k.Contexts[0].Context.User = "bothy", identity
	return k
}

// fileKubeconfig refers to the identity's files by path.
func fileKubeconfig(p paths.Paths, identity, server string) ([]byte, error) {
	k := newKubeconfig(identity, server)
	k.Clusters[0].Cluster.CAFile = p.ClusterCA()
	k.Users[0].User.CertFile, k.Users[0].User.KeyFile = p.Certificate(identity), p.Certificate(identity)
	return yaml.Marshal(k)
}

// InlineKubeconfig returns a kubeconfig of an identity that can be carried to
// another machine: it holds the certificates themselves. It works until the
// certificate in it expires, at most LeafLife. server overrides the URL unless
// it is empty.
func InlineKubeconfig(p paths.Paths, identity, server string) ([]byte, error) {
	data, err := os.ReadFile(p.Kubeconfig(identity))
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of %s: %w", identity, err)
	}
	var onDisk kubeconfig
	if err := yaml.Unmarshal(data, &onDisk); err != nil || len(onDisk.Clusters) != 1 {
		return nil, fmt.Errorf("kubeconfig %s is damaged; it is written anew when the control plane starts", p.Kubeconfig(identity))
	}
	if server == "" {
		server = onDisk.Clusters[0].Cluster.Server
	}
	ca, err := os.ReadFile(p.ClusterCA())
	if err != nil {
		return nil, fmt.Errorf("read cluster CA: %w", err)
	}
	leaf, err := os.ReadFile(p.Certificate(identity))
	if err != nil {
		return nil, fmt.Errorf("read certificate of %s: %w", identity, err)
	}
	cert, key := findBlock(leaf, "CERTIFICATE"), findBlock(leaf, "EC PRIVATE KEY")
	if cert == nil || key == nil {
		return nil, fmt.Errorf("certificate %s is damaged; it is issued anew when the control plane starts", p.Certificate(identity))
	}
	k := newKubeconfig(identity, server)
	encode := base64.StdEncoding.EncodeToString
	k.Clusters[0].Cluster.CAData = encode(ca)
	k.Users[0].User.CertData = encode(pem.EncodeToMemory(cert))
	k.Users[0].User.KeyData = encode(pem.EncodeToMemory(key))
	return yaml.Marshal(k)
}
