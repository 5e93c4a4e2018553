package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/internal/cosign"
)

const image = "registry.example.org/team/app:1"

// site is an authority and the nodes that it vouches for.
type site struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	dir  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.cert, s.key = s.issue("authority", nil, nil)
	return s
}

func (s *site) issue(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(s.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return cert, key
}

func (s *site) identity(name string) Identity {
	s.issue(name, s.cert, s.key)
	return Identity{CAFile: filepath.Join(s.dir, "authority.crt"), CertFile: filepath.Join(s.dir, name+".crt"), KeyFile: filepath.Join(s.dir, name+".key")}
}

func (s *site) tls(id Identity) *tls.Config {
	s.t.Helper()
	cert, err := tls.LoadX509KeyPair(id.CertFile, id.KeyFile)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, RootCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

// node has a content store and names for some of it.
type node struct {
	content.Store
	names map[string]ocispec.Descriptor
	reads atomic.Int32
	addr  string
	// signatures and enrolled are what the server asks.
	signatures func(string) (*cosign.Signatures, error)
	enrolled   func(*x509.Certificate) error
}

func (n *node) Find(_ context.Context, name string) (ocispec.Descriptor, error) {
	if d, ok := n.names[name]; ok {
		return d, nil
	}
	return ocispec.Descriptor{}, errdefs.ErrNotFound
}

func (n *node) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	n.reads.Add(1)
	return n.Store.ReaderAt(ctx, d)
}

func newNode(t *testing.T) *node {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &node{Store: store, names: map[string]ocispec.Descriptor{}, enrolled: func(*x509.Certificate) error { return nil }}
}

// serve starts the server of a node.
func (n *node) serve(t *testing.T, config *tls.Config) {
	t.Helper()
	n.serveContent(t, config, n)
}

func (n *node) serveContent(t *testing.T, config *tls.Config, from Content) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- (&Server{Images: n, Content: from, TLS: config, Enrolled: n.enrolled, Signatures: n.signatures}).Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// fill puts an image into a node and returns all of its blobs.
func (n *node) fill(t *testing.T) (ocispec.Descriptor, []ocispec.Descriptor) {
	t.Helper()
	l := imagetest.New(t)
	desc := l.Image(imagetest.Noise(1, 2<<20), []byte("second"))
	data, err := os.ReadFile(l.Path(desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	all := append([]ocispec.Descriptor{desc, m.Config}, m.Layers...)
	for _, d := range all {
		f, err := os.Open(l.Path(d.Digest))
		if err == nil {
			err = content.WriteBlob(t.Context(), n, d.Digest.String(), f, d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n.names[image] = desc
	return desc, all
}

// pull fetches an image into a node as containerd does, by its configuration.
func (n *node) pull(t *testing.T, registries string) (ocispec.Descriptor, error) {
	t.Helper()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(registries)}),
	})
	name, desc, err := resolver.Resolve(t.Context(), image)
	if err != nil {
		return desc, err
	}
	fetcher, err := resolver.Fetcher(t.Context(), name)
	if err != nil {
		return desc, err
	}
	return desc, ctrdimages.Dispatch(t.Context(), ctrdimages.Handlers(remotes.FetchHandler(n, fetcher), ctrdimages.ChildrenHandler(n)), nil, desc)
}

func TestANodePullsFromItsSiblingWithoutARegistry(t *testing.T) {
	s := newSite(t)
	depot, empty, fresh := newNode(t), newNode(t), newNode(t)
	desc, all := depot.fill(t)
	depot.serve(t, s.tls(s.identity("depot")))
	empty.serve(t, s.tls(s.identity("empty")))
	registries := t.TempDir()
	// One has nothing, one is off.
	asked, err := WriteHosts(registries, []string{empty.addr, "127.0.0.1:1", depot.addr}, s.identity("fresh"))
	if err != nil || !asked {
		t.Fatal(asked, err)
	}
	got, err := fresh.pull(t, registries)
	if err != nil || got.Digest != desc.Digest {
		t.Fatalf("pulled %s, %v", got.Digest, err)
	}
	for _, d := range all {
		if info, err := fresh.Info(t.Context(), d.Digest); err != nil || info.Size != d.Size {
			t.Errorf("%s: %+v, %v", d.Digest, info, err)
		}
	}
}

func TestATagThatTheSiteDoesNotNeedIsForItsRegistry(t *testing.T) {
	s := newSite(t)
	depot, fresh := newNode(t), newNode(t)
	depot.fill(t)
	clear(depot.names)
	depot.serve(t, s.tls(s.identity("depot")))
	registries := t.TempDir()
	if _, err := WriteHosts(registries, []string{depot.addr}, s.identity("fresh")); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.pull(t, registries); err == nil || depot.reads.Load() > 0 {
		t.Errorf("pulled by a tag of no account: %v, %d reads", err, depot.reads.Load())
	}
}

// client speaks to a node with a certificate, or without.
func client(c *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
}

func TestOnlyEnrolledNodesAreAnswered(t *testing.T) {
	s, other := newSite(t), newSite(t)
	depot := newNode(t)
	desc, _ := depot.fill(t)
	depot.serve(t, s.tls(s.identity("depot")))
	url := "https://" + depot.addr + "/v2/team/app/manifests/" + desc.Digest.String()
	stranger := other.tls(other.identity("stranger"))
	stranger.RootCAs = s.tls(s.identity("x")).RootCAs
	for who, c := range map[string]*tls.Config{"nobody": {RootCAs: stranger.RootCAs}, "a stranger": stranger} {
		resp, err := client(c).Get(url)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s got an answer: %s", who, resp.Status)
		}
	}
	resp, err := client(s.tls(s.identity("friend"))).Get(url)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("an enrolled node: %v, %v", resp, err)
	}
	data, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || digest.FromBytes(data) != desc.Digest || resp.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
		t.Errorf("%d bytes of %s, %v", len(data), resp.Header.Get("Content-Type"), err)
	}
	for what, bad := range map[string]*tls.Config{"none": nil, "anybody": {ClientAuth: tls.RequestClientCert}, "any certificate": {ClientAuth: tls.RequireAnyClientCert}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := (&Server{Images: depot, Content: depot, TLS: bad, Enrolled: func(*x509.Certificate) error { return nil }}).Serve(t.Context(), l); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNothingButReading(t *testing.T) {
	s := newSite(t)
	depot := newNode(t)
	_, all := depot.fill(t)
	depot.serve(t, s.tls(s.identity("depot")))
	friend := client(s.tls(s.identity("friend")))
	layer := all[2]
	do := func(method, path string, header http.Header) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+depot.addr+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := friend.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	blob := "/v2/team/app/blobs/" + layer.Digest.String()
	for _, c := range []struct {
		method, path string
		header       http.Header
		want         int
	}{
		{http.MethodGet, "/v2/", nil, 200},
		{http.MethodHead, blob, nil, 200},
		{http.MethodGet, blob, http.Header{"Range": {"bytes=100-199"}}, 206},
		{http.MethodGet, "/v2/team/app/blobs/sha256:" + strings.Repeat("0", 64), nil, 404},
		{http.MethodGet, "/v2/team/app/blobs/..%2f..%2fmeta.db", nil, 400},
		{http.MethodGet, "/v2/team/app/manifests/1", nil, 404}, // without the registry's name
		{http.MethodGet, "/v2/team/app/manifests/1?ns=registry.example.org", nil, 200},
		{http.MethodGet, "/v2/team/app/tags/list", nil, 404},
		{http.MethodPost, "/v2/team/app/blobs/uploads/", nil, 405},
		{http.MethodDelete, blob, nil, 405},
		{http.MethodPut, "/v2/team/app/manifests/1", nil, 405},
	} {
		if resp := do(c.method, c.path, c.header); resp.StatusCode != c.want {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Status)
		}
	}
}

// corrupt is a node whose disk changes what it reads, but for manifests.
type corrupt struct{ *node }

func (c corrupt) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := c.node.ReaderAt(ctx, d)
	if err != nil || d.Size < 100_000 {
		return r, err
	}
	return damaged{r}, nil
}

type damaged struct{ content.ReaderAt }

func (d damaged) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.ReaderAt.ReadAt(p, off)
	if n > 0 {
		p[n-1] ^= 1
	}
	return n, err
}

// siblings are other nodes as a node asks them.
func (s *site) siblings(t *testing.T, self string, nodes ...Node) *Siblings {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, NodesFile)
	if err := WriteNodes(file, nodes); err != nil {
		t.Fatal(err)
	}
	id := s.identity(self)
	sib := NewSiblings(SiblingsConfig{
		Self: self, File: file, Registries: filepath.Join(dir, "registries"), Identity: id,
		TLS: func() (*tls.Config, error) { return s.tls(id), nil },
	})
	if err := sib.Configure(); err != nil {
		t.Fatal(err)
	}
	return sib
}

// hosts are the addresses that containerd asks.
func (s *Siblings) hosts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.cfg.Registries, "_default", "hosts.toml"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// Of three nodes the first is off, the second sends another layer, and the third is as it should be: the image
// arrives whole, and who sent something wrong is not asked again.
func TestWhatIsWrongIsAskedForElsewhere(t *testing.T) {
	s := newSite(t)
	good, bad, fresh := newNode(t), newNode(t), newNode(t)
	desc, all := good.fill(t)
	bad.fill(t)
	good.serve(t, s.tls(s.identity("good")))
	bad.serveContent(t, s.tls(s.identity("bad")), corrupt{bad})
	sib := s.siblings(t, "b", Node{"a-good", good.addr}, Node{"c-off", "127.0.0.1:1"}, Node{"d-bad", bad.addr})
	if h := sib.hosts(t); !strings.Contains(h, bad.addr) || strings.Index(h, bad.addr) > strings.Index(h, good.addr) {
		t.Fatalf("the nodes after this one are not asked first:\n%s", h)
	}
	if err := sib.Fetch(t.Context(), fresh, image, desc); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if info, err := fresh.Info(t.Context(), d.Digest); err != nil || info.Size != d.Size {
			t.Errorf("%s: %+v, %v", d.Digest, info, err)
		}
	}
	if h := sib.hosts(t); strings.Contains(h, bad.addr) || !strings.Contains(h, good.addr) {
		t.Errorf("containerd asks:\n%s", h)
	}
	// Another pull does not go there at all.
	before, other := bad.reads.Load(), newNode(t)
	if err := sib.Fetch(t.Context(), other, image, desc); err != nil || bad.reads.Load() != before {
		t.Errorf("%v, %d reads", err, bad.reads.Load()-before)
	}
	// Without the good one nothing of the wrong layer stays, and it is said who sent it.
	alone := s.siblings(t, "b", Node{"d-bad", bad.addr})
	last := newNode(t)
	if err := alone.Fetch(t.Context(), last, image, desc); err == nil || !strings.Contains(err.Error(), "node d-bad: it sent something else for "+all[2].Digest.String()) {
		t.Errorf("%v", err)
	}
	if _, err := last.Info(t.Context(), all[2].Digest); err == nil {
		t.Error("a layer was kept that is not what was asked for")
	}
	if open, err := last.ListStatuses(t.Context()); err != nil || len(open) > 0 {
		t.Errorf("left in the making: %v, %v", open, err)
	}
}

func TestNobodyHasIt(t *testing.T) {
	s := newSite(t)
	empty := newNode(t)
	empty.serve(t, s.tls(s.identity("empty")))
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	for what, sib := range map[string]*Siblings{
		"no other node": s.siblings(t, "b"), "an empty one": s.siblings(t, "b", Node{"c", empty.addr}),
	} {
		if err := sib.Fetch(t.Context(), newNode(t), image, desc); !errors.Is(err, ErrNobody) {
			t.Errorf("%s: %v", what, err)
		}
		if found, err := sib.Collect(t.Context(), image, desc.Digest.String()); err != nil || !found.Empty() {
			t.Errorf("%s: signatures %+v, %v", what, found, err)
		}
	}
}

// Signatures come from all nodes that have some; who sends those of another image is left alone.
func TestSignaturesOfOtherNodes(t *testing.T) {
	s := newSite(t)
	of := digest.FromString("image").String()
	attached := func(name, of string) *cosign.Signatures {
		return &cosign.Signatures{Digest: of, Payloads: []cosign.Attached{{Name: name, Content: []byte(name)}}}
	}
	nodes := []Node{}
	for name, has := range map[string]*cosign.Signatures{
		"one": attached("one", of), "two": attached("two", of), "none": nil, "liar": attached("liar", digest.FromString("other").String()),
	} {
		n := newNode(t)
		n.signatures = func(d string) (*cosign.Signatures, error) {
			if d != of {
				return nil, errors.New("asked for something else")
			}
			return has, nil
		}
		n.serve(t, s.tls(s.identity(name)))
		nodes = append(nodes, Node{name, n.addr})
	}
	sib := s.siblings(t, "self", nodes...)
	found, err := sib.Collect(t.Context(), image, of)
	if err != nil || len(found.Payloads) != 2 || found.Digest != of {
		t.Errorf("%+v, %v", found, err)
	}
	liar := nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.Name == "liar" })].Address
	if h := sib.hosts(t); strings.Contains(h, liar) {
		t.Errorf("the liar is still asked:\n%s", h)
	}
}

// A machine that leaves gets nothing more over the connection that it has.
func TestEnrolmentIsAskedForAtEachRequest(t *testing.T) {
	s := newSite(t)
	depot := newNode(t)
	desc, _ := depot.fill(t)
	var left atomic.Bool
	depot.enrolled = func(c *x509.Certificate) error {
		if left.Load() && c.Subject.CommonName == "friend" {
			return errors.New("it left")
		}
		return nil
	}
	depot.serve(t, s.tls(s.identity("depot")))
	dials := 0
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(s.identity("friend")), DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	defer c.CloseIdleConnections()
	for _, want := range []int{http.StatusOK, http.StatusForbidden} {
		resp, err := c.Get("https://" + depot.addr + "/v2/team/app/manifests/" + desc.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
		left.Store(true)
	}
	if dials != 1 {
		t.Errorf("%d connections", dials)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Server{Images: depot, Content: depot, TLS: s.tls(s.identity("x"))}).Serve(t.Context(), l); !errors.Is(err, ErrOpen) {
		t.Errorf("a server that knows nobody: %v", err)
	}
}

func TestListOfNodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), NodesFile)
	if _, found, err := ReadNodes(file); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
	if err := WriteNodes(file, []Node{}); err != nil {
		t.Fatal(err)
	}
	if nodes, found, err := ReadNodes(file); !found || len(nodes) > 0 || err != nil {
		t.Errorf("%v, %t, %v", nodes, found, err)
	}
	if err := WriteNodes(file, []Node{{"b", "2"}, {"a", "1"}}); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNodes(file, []Node{{"a", "1"}, {"b", "2"}}); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(file); err != nil || !os.SameFile(before, now) {
		t.Errorf("the same list was written again: %v", err)
	}
	for range 2 {
		if err := WriteNodes(file, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := ReadNodes(file); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadNodes(file); err == nil || !strings.Contains(err.Error(), "the list of other nodes") {
		t.Errorf("%v", err)
	}
}

func TestTheOperatorsSettingsStay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "_default", "hosts.toml")
	id := Identity{"ca", "cert", "key"}
	if asked, err := WriteHosts(dir, []string{"10.0.0.2:5443", "10.0.0.3:5443"}, id); err != nil || !asked {
		t.Fatal(asked, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || slices.IndexFunc(strings.Split(string(text), "\n"), func(l string) bool { return strings.Contains(l, "10.0.0.2") }) > strings.Index(string(text), "10.0.0.3") {
		t.Errorf("%s, %v", text, err)
	}
	if asked, err := WriteHosts(dir, nil, id); err != nil || asked {
		t.Errorf("nobody left: %v, %v", asked, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
	const own = "server = \"https://proxy.example.org\"\n"
	if err := os.WriteFile(path, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	if asked, err := WriteHosts(dir, []string{"10.0.0.2:5443"}, id); err != nil || asked {
		t.Errorf("an operator's own file: %v, %v", asked, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != own {
		t.Errorf("it was changed: %s, %v", text, err)
	}
}
