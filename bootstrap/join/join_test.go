package join

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/identity"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// site is a control plane at work, with machines that its repository may or may not know.
type site struct {
	t      *testing.T
	paths  paths.Paths
	server Peer
	log    bytes.Buffer

	mu      sync.Mutex
	members []*v1alpha1.Machine
}

func newIdentity(t *testing.T) *identity.Identity {
	t.Helper()
	id, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, paths: paths.Paths{StateDir: t.TempDir(), RunDir: t.TempDir()}}
	store := pki.NewStore(pki.Spec{
		Paths: s.paths, Server: "https://127.0.0.1:6443", NodeName: "cp", NodeIP: loopback, ClusterDomain: "cluster.local",
	}, time.Now, slog.New(slog.DiscardHandler))
	if err := store.Ensure(); err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t)
	s.server = Peer{Name: "cp", Address: freeAddress(t), Identity: id.Fingerprint()}
	s.enrol("cp", v1alpha1.RoleControlPlane, id.Fingerprint(), "192.0.2.1")
	server := NewServer(ServerConfig{
		Addresses: []netip.AddrPort{s.server.Address}, Identity: id, Members: s.roster,
		Issuer: pki.NewIssuer(s.paths, time.Now), Parts: []string{"netdata", "dns"}, Log: slog.New(slog.NewTextHandler(&locked{w: &s.log}, nil)),
	})
	run(t, server)
	return s
}

// locked lets a handler and a test use one buffer.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func run(t *testing.T, server *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- server.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func (s *site) enrol(name, role, fingerprint string, addresses ...string) {
	m := v1alpha1.NewMachine(name)
	m.Spec.Role, m.Spec.Identity, m.Spec.Addresses = role, fingerprint, addresses
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(slices.DeleteFunc(s.members, func(o *v1alpha1.Machine) bool { return o.Metadata.Name == name }), m)
}

func (s *site) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(s.members, func(o *v1alpha1.Machine) bool { return o.Metadata.Name == name })
}

func (s *site) roster() roster.Roster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return roster.New(s.members)
}

// ask sends a request for all certificates as a machine would.
func (s *site) ask(id *identity.Identity, change func(*Request)) (*Answer, error) {
	s.t.Helper()
	r := &Request{Node: "w", Addresses: []netip.Addr{loopback}, Certificates: map[string][]byte{}}
	for _, name := range Names([]string{"netdata", "dns"}) {
		key, err := pki.NewKey(name)
		if err != nil {
			s.t.Fatal(err)
		}
		r.Certificates[name] = key.Request
	}
	if change != nil {
		change(r)
	}
	return (&Client{Identity: id, Peers: []Peer{s.server}}).Join(s.t.Context(), r)
}

func certificate(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("not PEM: %q", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What an enrolled worker gets is decided by the commit, whatever it writes into its requests.
func TestWorkerGetsWhatItsMachineIsToHave(t *testing.T) {
	s, id := newSite(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	greedy := func(r *Request) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.CertificateRequest{DNSNames: []string{"kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
		template.Subject.CommonName, template.Subject.Organization = "admin", []string{"system:masters"}
		r.Certificates[pki.KubeletServing], err = x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, err := s.ask(id, greedy)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(answer.CA)
	for name, want := range map[string]struct {
		user   string
		groups []string
		usage  x509.ExtKeyUsage
	}{
		pki.Kubelet:        {"system:node:w", []string{"system:nodes"}, x509.ExtKeyUsageClientAuth},
		pki.KubeletServing: {"system:node:w", []string{"system:nodes"}, x509.ExtKeyUsageServerAuth},
		"netdata":          {"bothy:netdata:w", []string{"bothy:workers", "bothy:workers:netdata"}, x509.ExtKeyUsageClientAuth},
		"dns":              {"bothy:dns:w", []string{"bothy:workers", "bothy:workers:dns"}, x509.ExtKeyUsageClientAuth},
	} {
		cert := certificate(t, answer.Certificates[name])
		groups := slices.Sorted(slices.Values(cert.Subject.Organization))
		if cert.Subject.CommonName != want.user || !slices.Equal(groups, want.groups) {
			t.Errorf("%s is for %s", name, cert.Subject)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{want.usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := time.Until(cert.NotAfter); left > pki.MemberLife {
			t.Errorf("%s lives for %s", name, left)
		}
		if !slices.ContainsFunc(cert.Subject.Names, func(a pkix.AttributeTypeAndValue) bool { return a.Value == id.Fingerprint() }) {
			t.Errorf("%s does not name the identity: %s", name, cert.Subject)
		}
	}
	serving := certificate(t, answer.Certificates[pki.KubeletServing])
	if len(serving.IPAddresses) != 1 || !serving.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) || !slices.Equal(serving.DNSNames, []string{"w"}) {
		t.Errorf("the serving certificate is valid for %v %v", serving.IPAddresses, serving.DNSNames)
	}
	if !certificate(t, answer.CA).IsCA || bytes.Contains(answer.CA, []byte("PRIVATE")) {
		t.Error("the CA that was handed out")
	}
}

// attack is something that must be refused, and its twin that differs in one thing and is not.
type attack struct {
	// prepare sets the scene and returns whoever asks, and how the request differs.
	prepare func(s *site) (*identity.Identity, func(*Request))
	twin    func(s *site) (*identity.Identity, func(*Request))
	want    Reason
	says    string
}

func asks(s *site, prepare func(s *site) (*identity.Identity, func(*Request))) error {
	id, change := prepare(s)
	_, err := s.ask(id, change)
	return err
}

func TestAttacks(t *testing.T) {
	enrolled := func(role string, addresses ...string) func(s *site) (*identity.Identity, func(*Request)) {
		return func(s *site) (*identity.Identity, func(*Request)) {
			id := newIdentity(s.t)
			s.enrol("w", role, id.Fingerprint(), addresses...)
			return id, nil
		}
	}
	worker := enrolled(v1alpha1.RoleWorker)
	with := func(prepare func(s *site) (*identity.Identity, func(*Request)), change func(*Request)) func(s *site) (*identity.Identity, func(*Request)) {
		return func(s *site) (*identity.Identity, func(*Request)) {
			id, _ := prepare(s)
			return id, change
		}
	}
	address := func(a string) func(*Request) {
		return func(r *Request) { r.Addresses = []netip.Addr{netip.MustParseAddr(a)} }
	}
	for name, c := range map[string]attack{
		"a machine that nobody enrolled": {
			prepare: func(s *site) (*identity.Identity, func(*Request)) { return newIdentity(s.t), nil },
			twin:    worker, want: NotEnrolled, says: "commit its Machine object",
		},
		"the name of an enrolled machine with another key": {
			prepare: func(s *site) (*identity.Identity, func(*Request)) {
				worker(s)
				return newIdentity(s.t), nil
			},
			twin: worker, want: NotEnrolled,
		},
		"a machine that was removed": {
			prepare: func(s *site) (*identity.Identity, func(*Request)) {
				id, _ := worker(s)
				if _, err := s.ask(id, nil); err != nil {
					s.t.Fatal(err)
				}
				s.remove("w")
				return id, nil
			},
			twin: worker, want: NotEnrolled,
		},
		"a machine whose identity was replaced": {
			prepare: func(s *site) (*identity.Identity, func(*Request)) {
				id, _ := worker(s)
				worker(s)
				return id, nil
			},
			twin: worker, want: NotEnrolled,
		},
		"a control plane as a worker": {
			prepare: enrolled(v1alpha1.RoleControlPlane, "127.0.0.1"), twin: enrolled(v1alpha1.RoleWorker, "127.0.0.1"), want: NotAWorker,
		},
		"another machine's name": {
			prepare: with(worker, func(r *Request) { r.Node = "cp" }), twin: with(worker, func(r *Request) { r.Node = "w" }), want: WrongName, says: `enrolled as "w", not as "cp"`,
		},
		"the control plane's address": {
			prepare: with(worker, address("192.0.2.1")), twin: with(worker, address("127.0.0.1")), want: BadAddress, says: `that of machine "cp"`,
		},
		"an address that is nobody's": {
			prepare: with(worker, address("192.0.2.77")), twin: with(enrolled(v1alpha1.RoleWorker, "192.0.2.77"), address("192.0.2.77")), want: BadAddress, says: "spec.addresses",
		},
		"an address that is not in the Machine object": {
			prepare: with(enrolled(v1alpha1.RoleWorker, "192.0.2.78"), address("127.0.0.1")), twin: with(enrolled(v1alpha1.RoleWorker, "127.0.0.1"), address("127.0.0.1")), want: BadAddress,
		},
		"no address": {
			prepare: with(worker, func(r *Request) { r.Addresses = nil }), twin: worker, want: BadAddress,
		},
		"a certificate that workers do not have": {
			prepare: with(worker, func(r *Request) { r.Certificates["admin"] = r.Certificates["netdata"] }),
			twin:    with(worker, func(r *Request) { delete(r.Certificates, "netdata") }), want: BadRequest,
		},
		"no certificate at all": {
			prepare: with(worker, func(r *Request) { clear(r.Certificates) }), twin: worker, want: BadRequest,
		},
		"a request that somebody else signed": {
			prepare: with(worker, func(r *Request) {
				der := bytes.Clone(r.Certificates["dns"])
				der[len(der)-1] ^= 1
				r.Certificates["dns"] = der
			}), twin: worker, want: BadRequest, says: "not signed with its key",
		},
		"a request that is none": {
			prepare: with(worker, func(r *Request) { r.Certificates["dns"] = []byte("x") }), twin: worker, want: BadRequest,
		},
		"a request for an RSA key": {
			prepare: with(worker, func(r *Request) { r.Certificates["dns"] = rsaRequest() }), twin: worker, want: BadRequest, says: "not ECDSA",
		},
		"a request that is too large": {
			prepare: with(worker, func(r *Request) { r.Node = strings.Repeat("w", maxRequest) }), twin: worker, want: BadRequest, says: "too large",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			err := asks(s, c.prepare)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Reason != c.want || !strings.Contains(refusal.Problem, c.says) {
				t.Errorf("got %v, want a refusal %s %q", err, c.want, c.says)
			}
			if err := asks(newSite(t), c.twin); err != nil {
				t.Errorf("the twin is refused: %v", err)
			}
		})
	}
}

func rsaRequest() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		panic(err)
	}
	return der
}

// A worker speaks to the control plane that its commit names, and sends nothing to anybody else: neither to one that is
// enrolled itself, nor through one.
func TestWorkerRefusesAnotherServer(t *testing.T) {
	s, id, other := newSite(t), newIdentity(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	s.enrol("w2", v1alpha1.RoleWorker, other.Fingerprint())

	heard := make(chan struct{}, 1)
	own, err := other.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	impostor := &http.Server{ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard <- struct{}{} })}
	go func() { _ = impostor.Serve(l) }()
	t.Cleanup(func() { impostor.Close() })

	genuine := s.server
	s.server.Address = netip.MustParseAddrPort(l.Addr().String())
	if _, err := s.ask(id, nil); err == nil || !strings.Contains(err.Error(), "somebody else answers") || !strings.Contains(err.Error(), other.Fingerprint()) {
		t.Errorf("error %v", err)
	}
	select {
	case <-heard:
		t.Error("the impostor was sent a request")
	default:
	}
	s.server = genuine
	if _, err := s.ask(id, nil); err != nil {
		t.Errorf("the genuine one: %v", err)
	}
}

// The next control plane is asked when one is away.
func TestNextControlPlane(t *testing.T) {
	s, id := newSite(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	gone := Peer{Name: "gone", Address: freeAddress(t), Identity: id.Fingerprint()}
	r := &Request{Node: "w", Addresses: []netip.Addr{loopback}, Certificates: map[string][]byte{}}
	key, err := pki.NewKey("dns")
	if err != nil {
		t.Fatal(err)
	}
	r.Certificates["dns"] = key.Request
	if _, err := (&Client{Identity: id, Peers: []Peer{gone, s.server}}).Join(t.Context(), r); err != nil {
		t.Error(err)
	}
	_, err = (&Client{Identity: id, Peers: []Peer{gone}}).Join(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "ask control plane gone at") {
		t.Errorf("error %v", err)
	}
	if _, err := (&Client{Identity: id}).Join(t.Context(), r); err == nil {
		t.Error("joined nobody")
	}
}

// Only TLS 1.3 with an ed25519 certificate is spoken.
func TestServerWantsAnIdentity(t *testing.T) {
	s, id := newSite(t), newIdentity(t)
	own, err := id.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, another, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"an identity":          {&tls.Config{Certificates: []tls.Certificate{own}}, true},
		"TLS 1.2":              {&tls.Config{Certificates: []tls.Certificate{own}, MaxVersion: tls.VersionTLS12}, false},
		"nobody":               {&tls.Config{}, false},
		"a key of P-256":       {&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, false},
		"more than one":        {&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{own.Certificate[0], own.Certificate[0]}, PrivateKey: own.PrivateKey}}}, false},
		"a stolen certificate": {&tls.Config{Certificates: []tls.Certificate{{Certificate: own.Certificate, PrivateKey: another}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.InsecureSkipVerify = true
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.config, DisableKeepAlives: true}, Timeout: 5 * time.Second}
			resp, err := client.Post("https://"+s.server.Address.String()+path, "application/json", strings.NewReader("{}"))
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("answer %v, error %v", resp, err)
			}
		})
	}
}

// A machine cannot keep the control plane busy, and neither can a crowd of strangers; each leaves the other alone.
func TestMachinesMayNotAskTooOften(t *testing.T) {
	s, id, stranger := newSite(t), newIdentity(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	reasons := func(id *identity.Identity) (out []Reason) {
		for range burst + 1 {
			_, err := s.ask(id, nil)
			var refusal *Refusal
			errors.As(err, &refusal)
			if refusal != nil {
				out = append(out, refusal.Reason)
			}
		}
		return out
	}
	got := reasons(stranger)
	if len(got) != burst+1 || got[0] != NotEnrolled || got[burst] != TooOften {
		t.Errorf("a stranger: %v", got)
	}
	if got := reasons(id); !slices.Equal(got, []Reason{TooOften}) {
		t.Errorf("a worker: %v", got)
	}
}

// A keeper gets certificates, keeps them over a restart without any control plane, and replaces those that
// do not fit.
func TestKeeper(t *testing.T) {
	s, id := newSite(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	member := paths.Paths{StateDir: t.TempDir()}
	names := Names([]string{"netdata", "dns"})
	life := func(peers ...Peer) *Keeper {
		t.Helper()
		k := &Keeper{
			Node: "w", Addresses: []netip.Addr{loopback}, Names: names, Client: &Client{Identity: id, Peers: peers},
			Store: pki.NewMemberStore(member, "https://127.0.0.1:6443", time.Now), Log: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ready := false
		if err := k.Run(ctx, func() { ready = true; cancel() }); err != nil || !ready {
			t.Fatalf("ready: %v, error %v, problem %v", ready, err, k.Problem())
		}
		return k
	}
	k := life(s.server)
	first, err := k.Store.RenewAt(names, "w", k.Addresses)
	if err != nil || time.Until(first) < pki.MemberLife/2 {
		t.Errorf("to be renewed at %s, %v", first, err)
	}
	life() // nobody to ask
	if err := os.WriteFile(member.Certificate("netdata"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	life(s.server)
	if at, err := k.Store.RenewAt(names, "v", k.Addresses); err == nil || !at.IsZero() {
		t.Errorf("with another name the certificates are good until %s", at)
	}
	if at, err := k.Store.RenewAt(names, "w", []netip.Addr{netip.MustParseAddr("192.0.2.9")}); err == nil || !at.IsZero() {
		t.Errorf("with another address the certificates are good until %s", at)
	}
	late := pki.NewMemberStore(member, "https://127.0.0.1:6443", func() time.Time { return time.Now().Add(pki.MemberLife + time.Minute) })
	if at, err := late.RenewAt(names, "w", k.Addresses); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after their life the certificates are good until %s, %v", at, err)
	}
	kubeconfig, err := os.ReadFile(member.KubeletKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if data := string(kubeconfig); !strings.Contains(data, "tls-server-name: kubernetes.default.svc") || !strings.Contains(data, "server: https://127.0.0.1:6443") {
		t.Errorf("kubeconfig:\n%s", data)
	}
}

// What a node shows to others is worth what the commit says of its machine at that moment.
func TestObjectionToANodesCertificate(t *testing.T) {
	s, id := newSite(t), newIdentity(t)
	s.enrol("w", v1alpha1.RoleWorker, id.Fingerprint())
	answer, err := s.ask(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	worker, part := certificate(t, answer.Certificates[pki.Kubelet]), certificate(t, answer.Certificates["netdata"])
	node := func(name, uid string) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}
		if uid != "" {
			c.Subject.Names = []pkix.AttributeTypeAndValue{{Type: worker.Subject.Names[len(worker.Subject.Names)-1].Type, Value: uid}}
		}
		return c
	}
	for i, n := range worker.Subject.Names {
		if n.Value == id.Fingerprint() { // the attribute that holds it is the last for node
			worker.Subject.Names[i], worker.Subject.Names[len(worker.Subject.Names)-1] = worker.Subject.Names[len(worker.Subject.Names)-1], n
		}
	}
	members := func(identity string, isWorker bool) roster.Roster {
		return roster.Roster{Members: []roster.Member{{Name: "cp", Identity: "cp-key"}, {Name: "w", Identity: identity, Worker: isWorker}}}
	}
	for _, c := range []struct {
		what    string
		members roster.Roster
		cert    *x509.Certificate
		want    string
	}{
		{"a worker", members(id.Fingerprint(), true), worker, ""},
		{"the control plane, whose certificates name no identity", members("", true), node("cp", ""), ""},
		{"a worker that left", roster.Roster{}, worker, "machine w is not enrolled any more"},
		{"a worker whose key was replaced", members("another", true), worker, "machine w has another identity now"},
		{"a worker without identity", members(id.Fingerprint(), true), node("w", ""), "machine w has another identity now"},
		{"a worker that calls itself the control plane", members(id.Fingerprint(), true), node("cp", id.Fingerprint()), "machine cp has another identity now"},
		{"a part of a worker's agent", members(id.Fingerprint(), true), part, "not a node's"},
		{"an administrator", members(id.Fingerprint(), true), &x509.Certificate{Subject: pkix.Name{CommonName: "system:node:w", Organization: []string{"system:masters"}}}, "not a node's"},
	} {
		err := Objection(c.members, c.cert)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}
