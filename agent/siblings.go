package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/bootstrap/join"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
	"github.com/bothy-os/bothy/images"
	"github.com/bothy-os/bothy/images/peer"
	"github.com/bothy-os/bothy/internal/kube"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
)

// imagesPort is where the nodes of a site give each other images.
const imagesPort = 5443

// siblingsFile is how the other nodes get from the agent into bothy kube.
var siblingsFile = filepath.Join(imagesDir, peer.NodesFile)

// siblingsComponent keeps the list of the nodes that have images to give: those that are Ready, and enrolled by the
// accepted commit.
func (h *hall) siblingsComponent() supervise.Component {
	return supervise.Component{Name: "image-siblings", Run: func(ctx context.Context, ready func()) error {
		ready()
		for ctx.Err() == nil {
			_, changed := h.running()
			members := h.enrolled()
			if err := keepSiblings(siblingsFile, members, h.env.Name); err != nil {
				return err
			}
			if isAlone(members, h.env.Name) {
				select {
				case <-changed:
				case <-ctx.Done():
				}
				continue
			}
			if err := h.watchSiblings(ctx, members, changed); err != nil && ctx.Err() == nil {
				h.log.Debug("watch the nodes that have images", "err", err)
				wait(ctx, retryWatch)
			}
		}
		return nil
	}}
}

// isAlone reports whether a machine has no other to ask.
func isAlone(members roster.Roster, self string) bool {
	_, listed := members.ByName(self)
	return !listed || len(members.Members) < 2
}

// keepSiblings takes whoever left off the list, before anything is known of the others.
func keepSiblings(file string, members roster.Roster, self string) error {
	if isAlone(members, self) {
		return peer.WriteNodes(file, nil)
	}
	before, _, err := peer.ReadNodes(file)
	if err != nil {
		before = nil // damaged: it is made anew
	}
	still := []peer.Node{}
	for _, n := range before {
		if _, enrolled := members.ByName(n.Name); enrolled && n.Name != self {
			still = append(still, n)
		}
	}
	return peer.WriteNodes(file, still)
}

// watchSiblings follows the Nodes until others are enrolled.
func (h *hall) watchSiblings(ctx context.Context, members roster.Roster, enrolment <-chan struct{}) error {
	config, err := kube.Config(h.paths.Kubeconfig(statusIdentity), "image-siblings")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	// The list comes first, because only a complete one says who is gone.
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	s := &siblings{self: h.env.Name, members: members, known: map[string]peer.Node{}}
	for i := range list.Items {
		s.note(&list.Items[i], watch.Added)
	}
	if err := s.write(siblingsFile); err != nil {
		return err
	}
	w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, open := <-w.ResultChan():
			node, ok := e.Object.(*corev1.Node)
			if !open || !ok {
				return errors.New("the watch ended")
			}
			s.note(node, e.Type)
			if err := s.write(siblingsFile); err != nil {
				return err
			}
		case <-enrolment:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// siblings are the other nodes as the API server knows them.
type siblings struct {
	self    string
	members roster.Roster
	known   map[string]peer.Node
}

func (s *siblings) note(node *corev1.Node, event watch.EventType) {
	delete(s.known, node.Name)
	_, enrolled := s.members.ByName(node.Name)
	address := internalIP(node)
	if up, _ := readiness(node, event); !up || !enrolled || node.Name == s.self || address == "" {
		return
	}
	s.known[node.Name] = peer.Node{Name: node.Name, Address: net.JoinHostPort(address, strconv.Itoa(imagesPort))}
}

func (s *siblings) write(file string) error {
	nodes := make([]peer.Node, 0, len(s.known))
	for _, n := range s.known {
		nodes = append(nodes, n)
	}
	return peer.WriteNodes(file, nodes)
}

// nodePaths are those of this node's files.
func nodePaths() paths.Paths { return paths.Paths{StateDir: boot.StateDir, RunDir: boot.RunDir} }

// nodePKI is how this node is known to others, and knows them, when they speak about images: by the certificates of their
// kubelets, which name the machine's identity, and by the accepted commit.
type nodePKI struct {
	paths  paths.Paths
	roster *roster.Reader
}

// newMirror is this node's part in giving images.
func newMirror(c *KubeConfig, guard imageGuard) *images.Mirror {
	p := nodePaths()
	id := nodePKI{paths: p, roster: roster.NewReader(p.Roster())}
	return &images.Mirror{
		Address: net.JoinHostPort(c.NodeIP, strconv.Itoa(imagesPort)), TLS: id.server(), Enrolled: id.objection,
		Signatures: guard.gate.Attached, Siblings: guard.siblings,
	}
}

func newSiblings(c *KubeConfig, log *slog.Logger) *peer.Siblings {
	p := nodePaths()
	id := nodePKI{paths: p, roster: roster.NewReader(p.Roster())}
	own := p.Certificate(pki.Kubelet)
	return peer.NewSiblings(peer.SiblingsConfig{
		Self: c.NodeName, File: siblingsFile, Registries: registriesDir, TLS: id.client,
		Identity: peer.Identity{CAFile: p.ClusterCA(), CertFile: own, KeyFile: own}, Log: log,
	})
}

// objection says why the holder of a certificate is not to have images.
func (n nodePKI) objection(cert *x509.Certificate) error {
	members, err := n.roster.Read()
	if err != nil {
		return fmt.Errorf("nobody knows which machines are enrolled: %w", err)
	}
	return join.Objection(members, cert)
}

// server lets in whom the cluster CA vouches for. It reads its files for each connection: they are renewed.
func (n nodePKI) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			authorities, cert, err := n.read(n.paths.KubeletServing())
			return &tls.Config{
				MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities, Certificates: []tls.Certificate{cert},
			}, err
		},
	}
}

// client is for one pull.
func (n nodePKI) client() (*tls.Config, error) {
	authorities, cert, err := n.read(n.paths.Certificate(pki.Kubelet))
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: authorities, Certificates: []tls.Certificate{cert},
		VerifyConnection: func(s tls.ConnectionState) error { return n.objection(s.PeerCertificates[0]) },
	}, err
}

func (n nodePKI) read(own string) (*x509.CertPool, tls.Certificate, error) {
	authorities := x509.NewCertPool()
	text, err := os.ReadFile(n.paths.ClusterCA())
	if err == nil && !authorities.AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s holds no certificate", n.paths.ClusterCA())
	}
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	cert, err := tls.LoadX509KeyPair(own, own)
	return authorities, cert, err
}
