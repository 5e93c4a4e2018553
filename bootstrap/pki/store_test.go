package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

var noon = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// node is a PKI directory with a clock that the test moves.
type node struct {
	t     *testing.T
	paths paths.Paths
	clock time.Time
	spec  Spec
	store *Store
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	n := &node{t: t, clock: noon, paths: paths.Paths{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}}
	n.spec = Spec{
		Paths: n.paths, Server: "https://192.0.2.10:6443", NodeName: "node1", NodeIP: netip.MustParseAddr("192.0.2.10"),
		ServiceIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, ClusterDomain: "cluster.local",
		ExtraSANs:  []string{"api.example.org", "198.51.100.7"},
		Identities: []Identity{{Name: "dns", User: "bothy:dns", Groups: []string{"bothy:components"}}},
		Serving:    []ServingCertificate{{Name: "metrics-serving", DNSNames: []string{"metrics.kube-system.svc"}}},
	}
	n.restart()
	return n
}

// restart forgets what the process knew.
func (n *node) restart() {
	n.store = NewStore(n.spec, func() time.Time { return n.clock }, slog.New(slog.DiscardHandler))
}

func (n *node) ensure() {
	n.t.Helper()
	if err := n.store.Ensure(); err != nil {
		n.t.Fatalf("Ensure: %v", err)
	}
}

func (n *node) ensureFails(want ...string) {
	n.t.Helper()
	err := n.store.Ensure()
	if err == nil {
		n.t.Fatal("Ensure succeeded")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			n.t.Errorf("error %q does not mention %q", err, w)
		}
	}
}

// content reads all files below the PKI directory.
func (n *node) content() map[string]string {
	n.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(n.paths.PKI(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[filepath.Base(path)] = string(data)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

func changed(a, b map[string]string) []string {
	var out []string
	for name, data := range b {
		if a[name] != data {
			out = append(out, name)
		}
	}
	return out
}

func (n *node) leafCert(file string) *x509.Certificate {
	n.t.Helper()
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		n.t.Fatalf("load %s: %v", file, err)
	}
	return pair.Leaf
}

// verify checks a leaf as a TLS peer would at the given time.
func (n *node) verify(file, caFile, host string, usage x509.ExtKeyUsage, at time.Time) error {
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(caFile)
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		n.t.Fatalf("load CA %s: %v", caFile, err)
	}
	_, err = n.leafCert(file).Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestEnsureMakesACompleteDirectory(t *testing.T) {
	n := newNode(t)
	n.ensure()

	for _, host := range []string{"192.0.2.10", "10.96.0.1", "127.0.0.1", "localhost", "node1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "api.example.org", "198.51.100.7"} {
		if err := n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), host, x509.ExtKeyUsageServerAuth, noon); err != nil {
			t.Errorf("API server as %s: %v", host, err)
		}
	}
	if err := n.verify(n.paths.KubeletServing(), n.paths.ClusterCA(), "192.0.2.10", x509.ExtKeyUsageServerAuth, noon); err != nil {
		t.Errorf("kubelet serving: %v", err)
	}
	if err := n.verify(n.paths.Certificate("metrics-serving"), n.paths.ClusterCA(), "metrics.kube-system.svc", x509.ExtKeyUsageServerAuth, noon); err != nil {
		t.Errorf("metrics serving: %v", err)
	}
	if err := n.verify(n.paths.FrontProxyClient(), n.paths.RequestHeaderCA(), "", x509.ExtKeyUsageClientAuth, noon); err != nil {
		t.Errorf("front proxy: %v", err)
	}

	kubelet := n.leafCert(n.paths.Certificate(Kubelet))
	if kubelet.Subject.CommonName != "system:node:node1" || fmt.Sprint(kubelet.Subject.Organization) != "[system:nodes]" {
		t.Errorf("kubelet is %v", kubelet.Subject)
	}
	if admin := n.leafCert(n.paths.Certificate(Admin)); fmt.Sprint(admin.Subject.Organization) != "["+AdminGroup+"]" {
		t.Errorf("admin is %v: its rights could not be taken away", admin.Subject)
	}
}

func TestLeavesCannotBeUsedForOtherPurposes(t *testing.T) {
	n := newNode(t)
	n.ensure()
	if n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "", x509.ExtKeyUsageClientAuth, noon) == nil {
		t.Error("the API server's serving certificate is accepted from a client")
	}
	if n.verify(n.paths.Certificate(Admin), n.paths.ClusterCA(), "", x509.ExtKeyUsageServerAuth, noon) == nil {
		t.Error("the admin's certificate is accepted from a server")
	}
	if n.verify(n.paths.Certificate(Admin), n.paths.RequestHeaderCA(), "", x509.ExtKeyUsageClientAuth, noon) == nil {
		t.Error("the front-proxy CA vouches for the admin")
	}
	if n.verify(n.paths.FrontProxyClient(), n.paths.ClusterCA(), "", x509.ExtKeyUsageClientAuth, noon) == nil {
		t.Error("the cluster CA vouches for the front proxy")
	}
}

func TestModes(t *testing.T) {
	n := newNode(t)
	n.ensure()
	if st, err := os.Stat(n.paths.PKI()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("PKI directory: %v %v", st.Mode(), err)
	}
	public := map[string]bool{n.paths.ClusterCA(): true, n.paths.RequestHeaderCA(): true, n.paths.ServiceAccountPublicKey(): true}
	for name := range n.content() {
		path := filepath.Join(n.paths.PKI(), name)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !public[path] && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode().Perm())
		}
	}
}

func TestSecondEnsureWritesNothing(t *testing.T) {
	n := newNode(t)
	n.ensure()
	before := n.content()
	n.clock = n.clock.Add(time.Hour)
	n.restart()
	n.ensure()
	if c := changed(before, n.content()); len(c) > 0 {
		t.Errorf("changed: %v", c)
	}
}

func TestLeavesAreRenewedInTime(t *testing.T) {
	n := newNode(t)
	n.ensure()
	before := n.content()

	n.clock = noon.Add(LeafLife*2/3 - renewJitter - time.Minute)
	if n.store.Due() != true { // the last-seen time is due
		t.Error("nothing is due after weeks")
	}
	n.ensure()
	for _, name := range changed(before, n.content()) {
		if strings.HasSuffix(name, ".pem") {
			t.Errorf("%s was renewed too early", name)
		}
	}
	if n.store.Due() {
		t.Error("due right after Ensure")
	}

	n.clock = noon.Add(LeafLife*2/3 + time.Minute)
	if !n.store.Due() {
		t.Error("not due after two thirds of the life")
	}
	n.ensure()
	after := n.content()
	for _, c := range n.store.Certificates() {
		if before[c.Name+".pem"] == after[c.Name+".pem"] {
			t.Errorf("%s was not renewed", c.Name)
		}
		if want := n.clock.Add(LeafLife); !c.NotAfter.Equal(want) {
			t.Errorf("%s is valid until %v, want %v", c.Name, c.NotAfter, want)
		}
	}
	if before["ca.crt"] != after["ca.crt"] || before["sa.key"] != after["sa.key"] {
		t.Error("a long-lived key was replaced")
	}
}

func TestExpiredLeavesAreRenewedAtStart(t *testing.T) {
	n := newNode(t)
	n.ensure()
	n.clock = noon.Add(200 * 24 * time.Hour) // half a year in a drawer
	n.restart()
	n.ensure()
	if err := n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "node1", x509.ExtKeyUsageServerAuth, n.clock); err != nil {
		t.Error(err)
	}
}

func TestRenewalIsSpread(t *testing.T) {
	n := newNode(t)
	n.ensure()
	times := map[time.Time]bool{}
	for _, cert := range n.store.current {
		times[renewAt(cert)] = true
	}
	if len(times) < 3 {
		t.Errorf("%d certificates are renewed at %d times", len(n.store.current), len(times))
	}
}

func TestClockThatWasNeverSet(t *testing.T) {
	n := newNode(t)
	n.clock = time.Unix(100, 0) // no battery
	n.ensure()
	ok := func(at time.Time, when string) {
		t.Helper()
		if err := n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "node1", x509.ExtKeyUsageServerAuth, at); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	ok(n.clock, "in 1970")

	n.clock = noon // time synchronisation
	if !n.store.Due() {
		t.Error("the jump is not noticed")
	}
	n.ensure()
	ok(n.clock, "after the jump")
	ca := n.content()["ca.crt"]

	n.clock = time.Unix(50, 0) // power cut
	n.restart()
	n.ensure()
	ok(n.clock, "in 1970 again")
	ok(noon.Add(24*time.Hour), "at the time the clock will be set to")
	if n.content()["ca.crt"] != ca {
		t.Error("the CA was replaced")
	}
	block, _ := pem.Decode([]byte(ca))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.NotAfter.Before(noon.AddDate(9, 0, 0)) {
		t.Errorf("CA made in 1970 ends %v (%v)", cert.NotAfter, err)
	}
}

func TestClockSetBackALittle(t *testing.T) {
	n := newNode(t)
	n.clock = noon.AddDate(1, 0, 0)
	n.ensure()
	n.clock = noon // plausible, but before all certificates
	n.restart()
	n.ensure()
	if err := n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "node1", x509.ExtKeyUsageServerAuth, n.clock); err != nil {
		t.Error(err)
	}
}

func TestDamagedLeafIsReissued(t *testing.T) {
	for name, damage := range map[string]string{"empty": "", "garbage": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "text": "hello"} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.ensure()
			write(t, n.paths.APIServerServing(), damage)
			if err := os.Remove(n.paths.Certificate(Scheduler)); err != nil {
				t.Fatal(err)
			}
			before := n.content()
			n.restart()
			n.ensure()
			if c := changed(before, n.content()); len(c) != 2 {
				t.Errorf("changed: %v", c)
			}
			if err := n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "node1", x509.ExtKeyUsageServerAuth, noon); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLeafWithAnotherKeyIsReissued(t *testing.T) {
	n := newNode(t)
	n.ensure()
	admin, sched := n.content()["admin.pem"], n.content()["scheduler.pem"]
	mixed := admin[:strings.Index(admin, "-----BEGIN EC")] + sched[strings.Index(sched, "-----BEGIN EC"):]
	write(t, n.paths.Certificate(Admin), mixed)
	n.restart()
	n.ensure()
	n.leafCert(n.paths.Certificate(Admin))
}

func TestChangedSettingsReissue(t *testing.T) {
	n := newNode(t)
	n.ensure()
	n.spec.ExtraSANs = []string{"other.example.org"}
	before := n.content()
	n.restart()
	n.ensure()
	if c := changed(before, n.content()); len(c) != 1 || c[0] != "apiserver.pem" {
		t.Errorf("changed: %v", c)
	}
	if n.verify(n.paths.APIServerServing(), n.paths.ClusterCA(), "api.example.org", x509.ExtKeyUsageServerAuth, noon) == nil {
		t.Error("the removed name is still valid")
	}
}

func TestDamagedClusterCAIsNeverReplaced(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, n *node) string{
		"certificate damaged": func(t *testing.T, n *node) string {
			write(t, n.paths.ClusterCA(), "xx")
			return n.paths.ClusterCA()
		},
		"key damaged": func(t *testing.T, n *node) string {
			write(t, n.paths.ClusterCAKey(), "")
			return n.paths.ClusterCAKey()
		},
		"key missing": func(t *testing.T, n *node) string {
			remove(t, n.paths.ClusterCAKey())
			return n.paths.ClusterCAKey()
		},
		"key of another CA": func(t *testing.T, n *node) string {
			write(t, n.paths.ClusterCAKey(), n.content()["front-proxy-ca.key"])
			return n.paths.ClusterCAKey()
		},
		"directory lost, etcd still there": func(t *testing.T, n *node) string {
			if err := os.MkdirAll(filepath.Join(n.paths.Etcd(), "member"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(n.paths.PKI()); err != nil {
				t.Fatal(err)
			}
			return n.paths.ClusterCA()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.ensure()
			file := harm(t, n)
			before := ""
			if data, err := os.ReadFile(n.paths.ClusterCA()); err == nil {
				before = string(data)
			}
			n.restart()
			n.ensureFails(file, "restore", "backup")
			after, err := os.ReadFile(n.paths.ClusterCA())
			if err == nil && string(after) != before {
				t.Error("the CA was overwritten")
			}
		})
	}
}

func TestFirstStartCutShort(t *testing.T) {
	n := newNode(t)
	n.ensure()
	// The key was written, nothing else.
	key := n.content()["ca.key"]
	if err := os.RemoveAll(n.paths.PKI()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.paths.PKI(), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, n.paths.ClusterCAKey(), key)
	write(t, n.paths.RequestHeaderCAKey(), "torn")
	n.restart()
	n.ensure()
}

func TestFrontProxyCAMayBeRemovedToGetANewOne(t *testing.T) {
	n := newNode(t)
	n.ensure()
	write(t, n.paths.RequestHeaderCA(), "xx")
	n.restart()
	n.ensureFails(n.paths.RequestHeaderCA(), "remove both")
	remove(t, n.paths.RequestHeaderCA())
	remove(t, n.paths.RequestHeaderCAKey())
	n.restart()
	n.ensure()
	if err := n.verify(n.paths.FrontProxyClient(), n.paths.RequestHeaderCA(), "", x509.ExtKeyUsageClientAuth, noon); err != nil {
		t.Error(err)
	}
}

func TestServiceAccountKey(t *testing.T) {
	n := newNode(t)
	n.ensure()
	write(t, n.paths.ServiceAccountKey(), "xx")
	n.restart()
	n.ensureFails(n.paths.ServiceAccountKey(), "remove it")
	remove(t, n.paths.ServiceAccountKey())
	n.restart()
	n.ensure()
	remove(t, n.paths.ServiceAccountPublicKey())
	n.restart()
	n.ensure()
	if _, err := os.Stat(n.paths.ServiceAccountPublicKey()); err != nil {
		t.Error(err)
	}
}

func TestExpiredCAIsReported(t *testing.T) {
	n := newNode(t)
	n.ensure()
	n.clock = noon.AddDate(11, 0, 0)
	n.restart()
	n.ensureFails("expired", "clock")
}

func TestInlineKubeconfigHoldsNoPaths(t *testing.T) {
	n := newNode(t)
	n.ensure()
	data, err := InlineKubeconfig(n.paths, Admin, "https://bothy.example.org:6443")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), n.paths.StateDir) || !strings.Contains(string(data), "https://bothy.example.org:6443") {
		t.Errorf("not portable:\n%s", data)
	}
	if _, err := InlineKubeconfig(n.paths, "unknown", ""); err == nil {
		t.Error("a kubeconfig for nobody")
	}
}

func TestSpecValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		ids     []Identity
		serving []ServingCertificate
		want    string
	}{
		"taken":         {ids: []Identity{{Name: "admin", User: "x"}}, want: "already in use"},
		"twice":         {ids: []Identity{{Name: "a", User: "x"}, {Name: "a", User: "y"}}, want: "already in use"},
		"path":          {ids: []Identity{{Name: "../x", User: "x"}}, want: "lower-case"},
		"no user":       {ids: []Identity{{Name: "x"}}, want: "no user"},
		"no names":      {serving: []ServingCertificate{{Name: "x"}}, want: "neither"},
		"as apiserver":  {serving: []ServingCertificate{{Name: "apiserver", DNSNames: []string{"x"}}}, want: "already in use"},
		"good":          {ids: []Identity{{Name: "x", User: "y"}}},
		"good, serving": {serving: []ServingCertificate{{Name: "x", DNSNames: []string{"y"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := Spec{NodeName: "node1", NodeIP: netip.MustParseAddr("192.0.2.1"), Identities: tc.ids, Serving: tc.serving}
			err := spec.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
