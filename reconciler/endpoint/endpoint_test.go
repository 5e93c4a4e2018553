package endpoint

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// site is an acceptor with the real rules and a real mirror, which keeps nothing
// on disk of what it accepts.
type site struct {
	mirror *mirror.Mirror
	boot   v1alpha1.BootTrust

	mu   sync.Mutex
	last *acceptance.Point
}

func newSite(t *testing.T, keys ...*gittest.Key) *site {
	t.Helper()
	m, err := mirror.Open(filepath.Join(t.TempDir(), "mirror"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{mirror: m}
	root, err := v1alpha1.DecodeTrustRoot("root.yaml", []byte(gittest.RootYAML(1, "", keys...)))
	if err != nil {
		t.Fatal(err)
	}
	s.boot = v1alpha1.BootTrust{Root: root}
	return s
}

func (s *site) Head() (branch, commit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return "main", ""
	}
	return "main", s.last.Commit
}

func (s *site) Mirror() *mirror.Mirror { return s.mirror }

func (s *site) Push(ctx context.Context, tip string, pack io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mirror.Ingest(ctx, pack, tip); err != nil {
		return err
	}
	if _, err := acceptance.NewVerifier(s.mirror, time.Now).Verify(ctx, tip, s.last, s.boot); err != nil {
		return err
	}
	s.last = &acceptance.Point{Commit: tip}
	return nil
}

func runGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func git(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const testToken = "a-token-of-the-test"

func tokenSum(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// served is a running endpoint.
type served struct {
	*Endpoint
	cfg  Config
	base string // https://…
	ca   string // file of its certificate
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serve(t *testing.T, cfg Config) *served {
	t.Helper()
	s := &served{log: &syncBuffer{}}
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	if cfg.Boot.Address == "" {
		cfg.Boot.Address = "127.0.0.1:0"
	}
	cfg.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Endpoint, s.cfg = e, cfg
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- e.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	s.base = "https://" + e.Status().Address
	s.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.ca, []byte(e.Status().Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func tokens() *v1alpha1.BootEndpoint {
	return &v1alpha1.BootEndpoint{Tokens: []v1alpha1.EndpointToken{{Name: "other", SHA256: tokenSum("x")}, {Name: "ci", SHA256: tokenSum(testToken)}}}
}

// url is the repository with a token in it, as git takes it.
func (s *served) url(token string) string {
	return strings.Replace(s.base, "https://", "https://git:"+token+"@", 1) + "/git/site.git"
}

// git runs git so that it trusts the endpoint.
func (s *served) git(dir string, args ...string) (string, error) {
	return git(dir, append([]string{"-c", "http.sslCAInfo=" + s.ca}, args...)...)
}

func signedRepo(t *testing.T) (*gittest.Repo, *gittest.Key) {
	t.Helper()
	key := gittest.SSHKey(t, "alice")
	r := gittest.NewRepo(t)
	r.Root(1, "", key)
	r.Write("clusters/a/kustomization.yaml", "resources: []\n")
	r.Commit(key, "first")
	return r, key
}

// certificateFor makes an authority and a client certificate of it.
func certificateFor(t *testing.T, name string) (authority, certFile, keyFile string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})), certFile, keyFile
}

func TestHealth(t *testing.T) {
	s := serve(t, Config{Boot: &v1alpha1.BootEndpoint{}})
	response, err := s.client(t).Get(s.base + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		t.Errorf("%s over HTTP/%d", response.Status, response.ProtoMajor)
	}
	for _, path := range []string{"/", "/git/site.git/info/refs?service=git-receive-pack", "/hook/abc"} {
		response, err := s.client(t).Get(s.base + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s, which nobody configured: %s", path, response.Status)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	s := serve(t, Config{Boot: &v1alpha1.BootEndpoint{}})
	other, err := New(Config{Boot: &v1alpha1.BootEndpoint{Address: s.Status().Address}, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context(), func() { t.Error("ready") }); err == nil || !strings.Contains(err.Error(), "endpoint.address") {
		t.Errorf("%v", err)
	}
}
