package endpoint_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/endpoint"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

var _ endpoint.Acceptor = (*reconciler.Reconciler)(nil)

// node is a machine that has no repository but what is pushed to it.
type node struct {
	t     testing.TB
	cfg   reconciler.Config
	rec   *reconciler.Reconciler
	end   *endpoint.Endpoint
	url   string
	ca    string
	close func()
}

const token = "pushed-by-a-test"

func newNode(t testing.TB, keys ...*gittest.Key) *node {
	t.Helper()
	root, err := v1alpha1.DecodeTrustRoot("boot", []byte(gittest.RootYAML(1, "", keys...)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(token))
	boot := &v1alpha1.BootConfig{
		Repository: v1alpha1.RepositorySpec{Branch: "main", Path: "clusters/default"},
		Trust:      v1alpha1.BootTrust{Root: root},
		Endpoint:   &v1alpha1.BootEndpoint{Address: "127.0.0.1:0", Tokens: []v1alpha1.EndpointToken{{Name: "ci", SHA256: hex.EncodeToString(sum[:])}}},
	}
	boot.Default()
	n := &node{t: t, cfg: reconciler.Config{StateDir: t.TempDir(), Boot: boot, Log: slog.New(slog.DiscardHandler)}}
	t.Cleanup(func() { n.stop() })
	return n
}

// start runs the component that accepts, and the endpoint.
func (n *node) start() {
	n.t.Helper()
	var err error
	if n.rec, err = reconciler.New(n.cfg); err != nil {
		n.t.Fatal(err)
	}
	n.end, err = endpoint.New(endpoint.Config{Boot: n.cfg.Boot.Endpoint, StateDir: n.cfg.StateDir, MachineName: "node-1", Acceptor: n.rec, Trigger: n.rec.Trigger})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	ready := make(chan struct{})
	for _, c := range n.rec.Components() {
		if c.Name == reconciler.ComponentGit {
			go func() { done <- c.Run(ctx, func() {}) }()
		}
	}
	go func() { done <- n.end.Run(ctx, func() { close(ready) }) }()
	n.close = func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				n.t.Error(err)
			}
		}
	}
	<-ready
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(time.Millisecond); n.rec.Mirror() == nil; <-tick.C {
		if time.Now().After(deadline) {
			n.t.Fatal("the mirror is not opened")
		}
	}
	n.url = "https://git:" + token + "@" + n.end.Status().Address + "/git/site.git"
	n.ca = filepath.Join(n.t.TempDir(), "ca.pem")
	if err := os.WriteFile(n.ca, []byte(n.end.Status().Certificate), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) stop() {
	if n.close != nil {
		n.close()
		n.close = nil
	}
}

func (n *node) git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "http.sslCAInfo=" + n.ca}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// want asks for a commit as no git would, which only asks for what is
// advertised.
func (n *node) want(commit string) int {
	n.t.Helper()
	line := "want " + commit + " side-band-64k\n"
	body := fmt.Sprintf("%04x%s00000009done\n", len(line)+4, line)
	request, err := http.NewRequest(http.MethodPost, n.url+"/git-upload-pack", strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(n.end.Status().Certificate))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(withPassword(request))
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// withPassword moves the password from the URL to the header.
func withPassword(r *http.Request) *http.Request {
	password, _ := r.URL.User.Password()
	r.SetBasicAuth("git", password)
	r.URL.User = nil
	return r
}

func (n *node) accepted() string {
	_, head := n.rec.Head()
	return head
}

func TestSiteThatOnlyPushesReach(t *testing.T) {
	alice, mallory := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "mallory")
	r := gittest.NewRepo(t)
	r.Root(1, "", alice)
	r.Write("clusters/default/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	first := r.Commit(alice, "first")
	n := newNode(t, alice)
	n.start()

	if out, err := n.git(r.Dir, "push", n.url, "main"); err != nil || n.accepted() != first {
		t.Fatalf("first push: %v, head %s\n%s", err, n.accepted(), out)
	}
	r.Write("clusters/default/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
	second := r.Commit(alice, "second")
	if out, err := n.git(r.Dir, "push", n.url, "main"); err != nil || n.accepted() != second {
		t.Fatalf("second push: %v, head %s\n%s", err, n.accepted(), out)
	}

	r.Git("checkout", "-q", "-b", "attack")
	r.Write("clusters/default/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	stolen := r.Commit(mallory, "by mallory")
	out, err := n.git(r.Dir, "push", n.url, "attack:main")
	if err == nil || !strings.Contains(out, "refused by rule: signature") || n.accepted() != second {
		t.Errorf("a commit by an unknown key: %v, head %s\n%s", err, n.accepted(), out)
	}
	out, err = n.git(r.Dir, "push", n.url, "+"+first+":main")
	if err == nil || n.accepted() != second {
		t.Errorf("an older commit: %v, head %s\n%s", err, n.accepted(), out)
	}
	r.Git("checkout", "-q", "-B", "sibling", first)
	r.Write("clusters/default/d.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\n")
	r.Commit(alice, "sibling")
	out, err = n.git(r.Dir, "push", n.url, "+sibling:main")
	if err == nil || !strings.Contains(out, "refused by rule: descent") || n.accepted() != second {
		t.Errorf("a sibling: %v, head %s\n%s", err, n.accepted(), out)
	}
	// What was refused cannot be fetched back.
	if code := n.want(stolen); code != http.StatusConflict {
		t.Errorf("a fetch of a refused commit was answered with %d", code)
	}
	if code := n.want(first); code != http.StatusOK {
		t.Errorf("a fetch of an older commit of the branch was answered with %d", code)
	}

	n.stop()
	n.start()
	if n.accepted() != second {
		t.Errorf("after a restart the head is %s", n.accepted())
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := n.git("", "clone", "-q", n.url, clone); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := n.git(clone, "rev-parse", "HEAD"); err != nil || strings.TrimSpace(out) != second {
		t.Errorf("the clone is at %s", out)
	}
	r.Git("checkout", "-q", "main")
	r.Write("clusters/default/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	third := r.Commit(alice, "the same change, signed by alice")
	if out, err := n.git(r.Dir, "push", n.url, "main"); err != nil || n.accepted() != third {
		t.Errorf("a push after the restart: %v\n%s", err, out)
	}
}

// BenchmarkPush is one commit of one small file, pushed by git, until git says
// that it is accepted. Most of it is git itself.
func BenchmarkPush(b *testing.B) {
	alice := gittest.SSHKey(b, "alice")
	r := gittest.NewRepo(b)
	r.Root(1, "", alice)
	for i := range 200 {
		r.Write(fmt.Sprintf("clusters/default/%03d.yaml", i), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\n", i))
	}
	r.Commit(alice, "first")
	n := newNode(b, alice)
	n.start()
	if out, err := n.git(r.Dir, "push", n.url, "main"); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		r.Write("clusters/default/000.yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c0}\ndata: {n: %q}\n", fmt.Sprint(i)))
		r.Commit(alice, "change")
		b.StartTimer()
		if out, err := n.git(r.Dir, "push", n.url, "main"); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
}
