package images

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
	"github.com/bothy-os/bothy/test/cluster"
)

// imagesPort is where nodes give each other images.
const imagesPort = "5443"

// pair is a site of two nodes, and what was carried to the first of them.
type pair struct {
	repo       *cluster.Repo
	cp, worker *cluster.Node
	kubectl    *cluster.Kubectl
	late       *carrier
	images     map[string]v1.Image
	// brought is what is carried to the second.
	brought string
	key     *cosigntest.Key
	cpIP    string
}

// TestImagesFromAnotherNode is a site without a registry whose first node has what the second needs.
func TestImagesFromAnotherNode(t *testing.T) {
	p := &pair{key: cosigntest.NewKey(t), repo: cluster.NewRepo(t, false, nil), images: map[string]v1.Image{}}
	p.cp = cluster.NodeFor(t, p.repo)
	p.cp.Workers = 1
	p.worker = p.cp.Worker(1)
	t.Cleanup(func() {
		if t.Failed() {
			p.worker.Dump(t)
		}
	})
	both := newCarrier(t, filepath.Join(t.TempDir(), "both"))
	both.know(p.cp.Paths.Images)
	toolbox := both.know(p.cp.Paths.TestImages)["bothy.local/toolbox:1"]
	for _, name := range both.names() {
		both.sign(name, name, p.key)
	}
	p.late = newCarrier(t, filepath.Join(t.TempDir(), "late"))
	for _, name := range []string{"bothy.local/app:1", "bothy.local/unsigned:1", registryHost + "/app:1"} {
		p.images[name] = p.late.vary(name, toolbox)
		if !strings.Contains(name, "unsigned") {
			p.late.sign(name, name, p.key)
		}
	}
	brought := newCarrier(t, filepath.Join(t.TempDir(), "brought"))
	brought.vary("bothy.local/back:1", toolbox)
	brought.sign("bothy.local/back:1", "bothy.local/back:1", p.key)
	p.brought = brought.dir
	up := p.cp.Up(t, "--images", both.dir, "--enrol-in", p.repo.Dir)
	p.cpIP = up.NodeIP
	p.kubectl = p.cp.Kubectl(t)
	p.cp.Run(t, "image", "import", p.late.dir)
	p.has(t, p.cp, "bothy.local/unsigned:1")
	// From here on the first node has an image that it would not take in any more.
	globs := strings.Replace(policy(t, p.key, "sha256:"+strings.Repeat("0", 64)), `- glob: "bothy.local/**"`, `- glob: "bothy.local/**"`+"\n    - glob: \""+registryHost+"/**\"", 1)
	p.repo.Write(t, "trust/images.yaml", globs)
	commit := p.push(t, "only what the team signed")
	for _, n := range []*cluster.Node{p.cp, p.worker} {
		(&site{Node: n, repo: p.repo}).inForce(t, commit, true)
	}
	p.siblings(t, p.worker, p.cp.Name)
	p.siblings(t, p.cp, p.worker.Name)

	t.Run("an image that only the other node has runs", p.runs)
	t.Run("what was not signed is refused whoever has it", p.refused)
	t.Run("the other way round", p.back)
	t.Run("a node that sends something else is left alone", p.damaged)
	t.Run("a machine that left gets nothing more", p.leaves)
}

// push has both nodes look at what is in the work tree.
func (p *pair) push(t *testing.T, message string) string {
	t.Helper()
	commit := p.repo.Push(t, message, cluster.Signed)
	for _, n := range []*cluster.Node{p.cp, p.worker} {
		n.Try(t, "reconcile")
	}
	return commit
}

// runtime speaks to the container runtime of a node as its kubelet does.
func runtimeOf(t *testing.T, n *cluster.Node) cri.ImageServiceClient {
	t.Helper()
	socket, err := n.Path("/run/bothy/containerd.sock")
	must(t, err)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return cri.NewImageServiceClient(conn)
}

func pull(t *testing.T, n *cluster.Node, image string) error {
	t.Helper()
	_, err := runtimeOf(t, n).PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
	return err
}

// has waits until a node has an image.
func (p *pair) has(t *testing.T, n *cluster.Node, image string) {
	t.Helper()
	service := runtimeOf(t, n)
	cluster.Eventually(t, patience, n.Name+" to have "+image, func() error {
		got, err := service.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
		if err == nil && got.Image == nil {
			err = errors.New("it has not")
		}
		return err
	})
}

// siblings waits until containerd of a node asks another.
func (p *pair) siblings(t *testing.T, n *cluster.Node, other string) {
	t.Helper()
	cluster.Eventually(t, patience, n.Name+" to know that "+other+" has images", func() error {
		var list struct {
			Nodes []struct{ Name, Address string }
		}
		text, err := os.ReadFile(filepath.Join(n.State, "images", "nodes.json"))
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil {
			return err
		}
		hosts, err := os.ReadFile(filepath.Join(n.State, "images", "registries", "_default", "hosts.toml"))
		if err == nil && (len(list.Nodes) != 1 || list.Nodes[0].Name != other || !strings.Contains(string(hosts), list.Nodes[0].Address)) {
			err = fmt.Errorf("it has %s and %s", text, hosts)
		}
		return err
	})
}

// onWorker is a pod on the worker.
func (p *pair) onWorker(name, image string) string {
	return strings.Replace(pod(name, image), `"spec": {`, fmt.Sprintf(`"spec": {"nodeSelector": {"kubernetes.io/hostname": %q}, `, p.worker.Name), 1)
}

func (p *pair) runs(t *testing.T) {
	const image = "bothy.local/app:1"
	p.kubectl.Apply(t, p.onWorker("app", image))
	ready(t, p.kubectl, "app")
	// The signature came with the image, and the worker has judged by it itself.
	hex := strings.TrimPrefix(p.late.digests[image], "sha256:")
	if _, err := os.Stat(filepath.Join(p.worker.State, "images", "signatures", "sha256", hex+".json")); err != nil {
		t.Errorf("the worker has no signature of %s: %v", image, err)
	}
	if r := p.worker.Try(t, "image", "verify", "bothy.local/app@sha256:"+hex); r.Code != 0 || !strings.Contains(r.Stdout, "signed by the key (SHA-256 ") {
		t.Errorf("%+v", r)
	}
	if text := p.logOf(t, p.worker); !strings.Contains(text, "image fetched from other nodes") {
		t.Error("the worker does not say where the image came from")
	}
}

// logOf is what bothy kube of a node has said.
func (p *pair) logOf(t *testing.T, n *cluster.Node) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.State, "logs", "kube*"))
	must(t, err)
	var all bytes.Buffer
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		all.Write(text)
	}
	return all.String()
}

func (p *pair) refused(t *testing.T) {
	if err := pull(t, p.worker, "bothy.local/unsigned:1"); err == nil || !strings.Contains(err.Error(), "has no signature") {
		t.Errorf("an unsigned image from the other node: %v", err)
	}
}

// back has the first node take an image from the second.
func (p *pair) back(t *testing.T) {
	const image = "bothy.local/back:1"
	p.worker.Run(t, "image", "import", p.brought)
	p.has(t, p.worker, image)
	must(t, pull(t, p.cp, image))
	if r := p.cp.Try(t, "image", "verify", image); r.Code != 0 || !strings.Contains(r.Stdout, "signed by the key (SHA-256 ") {
		t.Errorf("%+v", r)
	}
}

// registryHost is a registry on the worker's own loopback.
const registryHost = "127.0.0.1:5000"

// damaged has the other node's disk change a layer: what it sends is refused, and the pull goes on with the registry.
func (p *pair) damaged(t *testing.T) {
	const image = registryHost + "/app:1"
	layers, err := p.images[image].Layers()
	must(t, err)
	layer, err := layers[len(layers)-1].Digest() // which no other image has
	must(t, err)
	file := filepath.Join(p.cp.State, "containerd", "io.containerd.content.v1.content", "blobs", "sha256", layer.Hex)
	text, err := os.ReadFile(file)
	must(t, err)
	text[len(text)/2] ^= 1
	must(t, os.WriteFile(file, text, 0o600))
	if err := pull(t, p.worker, image); err == nil {
		t.Fatal("a damaged image was pulled")
	}
	if text := p.logOf(t, p.worker); !strings.Contains(text, "another node sent something wrong") || !strings.Contains(text, layer.String()) {
		t.Error("the worker does not say what was wrong")
	}
	if asks := p.asks(t); asks {
		t.Error("containerd of the worker goes on asking the node")
	}
	served := p.serve(t, image)
	must(t, pull(t, p.worker, image))
	if served.Load() == 0 {
		t.Error("the registry was not asked for the layer")
	}
	if r := p.worker.Try(t, "image", "verify", image); r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

// asks reports whether the worker's containerd asks other nodes.
func (p *pair) asks(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(p.worker.State, "images", "registries", "_default", "hosts.toml"))
	return err == nil
}

// serve is a registry in the worker's network with an image. It counts what is asked for.
func (p *pair) serve(t *testing.T, image string) *atomic.Int32 {
	t.Helper()
	ns, err := p.worker.Namespace()
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	l, err := ns.Listen("tcp", registryHost)
	must(t, err)
	back := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	asked := &atomic.Int32{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			asked.Add(1)
		}
		back.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }() // it ends with the listener
	t.Cleanup(func() { must(t, server.Close()) })
	ref, err := name.ParseReference(image)
	must(t, err)
	must(t, remote.Write(ref, p.images[image], remote.WithTransport(&http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return ns.Dial(ctx, network, address)
		},
	})))
	asked.Store(0)
	return asked
}

// leaves removes the worker's Machine: with its certificate, and over the connection that it has open, it gets nothing.
func (p *pair) leaves(t *testing.T) {
	pki := filepath.Join(p.worker.State, "pki")
	cert, err := tls.LoadX509KeyPair(filepath.Join(pki, "kubelet.pem"), filepath.Join(pki, "kubelet.pem"))
	must(t, err)
	ca, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the worker's CA is none")
	}
	dials := 0
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	defer client.CloseIdleConnections()
	ask := func() int {
		t.Helper()
		resp, err := client.Get("https://" + net.JoinHostPort(p.cpIP, imagesPort) + "/v2/bothy.local/app/manifests/" + p.late.digests["bothy.local/app:1"])
		must(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		return resp.StatusCode
	}
	if code := ask(); code != http.StatusOK {
		t.Fatalf("an enrolled machine gets %d", code)
	}
	anybody := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	if resp, err := anybody.Get("https://" + net.JoinHostPort(p.cpIP, imagesPort) + "/v2/"); err == nil {
		resp.Body.Close()
		t.Errorf("whoever has no certificate gets %s", resp.Status)
	}
	// A third machine keeps the site one of several: that nobody is left is another reason to be silent.
	p.repo.Write(t, filepath.Join(p.repo.Path, "machines", "spare.yaml"),
		"apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: spare}\nspec: {role: worker, identity: \"SHA256:"+strings.Repeat("A", 43)+"\"}\n")
	p.repo.Remove(t, filepath.Join(p.repo.Path, "machines", p.worker.Name+".yaml"))
	p.repo.Push(t, "Replace the worker", cluster.Signed)
	p.cp.Run(t, "reconcile")
	cluster.Eventually(t, patience, "the machine that left to be refused", func() error {
		if code := ask(); code != http.StatusForbidden {
			return fmt.Errorf("it gets %d", code)
		}
		return nil
	})
	if dials != 1 {
		t.Errorf("it took %d connections", dials)
	}
	if text := p.logOf(t, p.cp); !strings.Contains(text, "is not enrolled any more") {
		t.Error("the node does not say whom it refused")
	}
}
