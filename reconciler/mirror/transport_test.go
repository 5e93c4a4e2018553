package mirror_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bothy-os/bothy/reconciler/internal/gitliar"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// clientCertificate makes a self-signed certificate.
func clientCertificate(t *testing.T) (certificate, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return string(text), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), pool
}

func authorityOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func repoWithCommit(t *testing.T) (*gittest.Repo, string) {
	t.Helper()
	r := gittest.NewRepo(t)
	r.Write("a", "one")
	return r, r.Commit(nil, "first")
}

// get fetches into a new mirror.
func get(t *testing.T, r mirror.Remote) (string, error) {
	t.Helper()
	r.Branch = "main"
	return open(t, mirror.Limits{}).Fetch(context.Background(), r)
}

func TestTLS(t *testing.T) {
	r, first := repoWithCommit(t)
	server := gitliar.New(t, r.Dir, true)
	good := &mirror.Credentials{CACertificates: authorityOf(server.Server)}
	if tip, err := get(t, mirror.Remote{URL: server.Repository, Credentials: good}); err != nil || tip != first {
		t.Errorf("%s, %v", tip, err)
	}
	other, _, _ := clientCertificate(t)
	for what, c := range map[string]*mirror.Credentials{"system": {}, "another authority": {CACertificates: other}} {
		_, err := get(t, mirror.Remote{URL: server.Repository, Credentials: c})
		if err == nil || !strings.Contains(err.Error(), "caCertificates") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := get(t, mirror.Remote{URL: server.Repository, Credentials: &mirror.Credentials{CACertificates: "nonsense"}}); err == nil || !strings.Contains(err.Error(), "holds no PEM certificate") {
		t.Errorf("error %v", err)
	}
}

func TestMutualTLS(t *testing.T) {
	r, first := repoWithCommit(t)
	server := gitliar.New(t, r.Dir, true)
	certificate, key, pool := clientCertificate(t)
	server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, pool
	ca := authorityOf(server.Server)
	with := &mirror.Credentials{CACertificates: ca, ClientCertificate: certificate, ClientKey: key}
	if tip, err := get(t, mirror.Remote{URL: server.Repository, Credentials: with}); err != nil || tip != first {
		t.Errorf("%s, %v", tip, err)
	}
	if _, err := get(t, mirror.Remote{URL: server.Repository, Credentials: &mirror.Credentials{CACertificates: ca}}); err == nil {
		t.Error("without a certificate")
	}
	with.ClientKey = "nonsense"
	if _, err := get(t, mirror.Remote{URL: server.Repository, Credentials: with}); err == nil || !strings.Contains(err.Error(), "clientKey") || strings.Contains(err.Error(), key) {
		t.Errorf("error %v", err)
	}
}

// TestOldTLS refuses a server that speaks nothing newer than TLS 1.1.
func TestOldTLS(t *testing.T) {
	r, _ := repoWithCommit(t)
	server := gitliar.New(t, r.Dir, true)
	server.TLS.MinVersion, server.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := get(t, mirror.Remote{URL: server.Repository, Credentials: &mirror.Credentials{CACertificates: authorityOf(server.Server)}}); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("error %v", err)
	}
}

// TestRedirects follows a repository that moved, but takes no credentials to
// another host.
func TestRedirects(t *testing.T) {
	r, first := repoWithCommit(t)
	server := gitliar.New(t, r.Dir, false)
	seen := atomic.Value{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen.Store(req.Header.Get("Authorization") + " ")
		http.Redirect(w, req, server.URL+"/.git"+strings.TrimPrefix(req.URL.Path, "/moved")+"?"+req.URL.RawQuery, http.StatusMovedPermanently)
	}))
	defer elsewhere.Close()
	if tip, err := get(t, mirror.Remote{URL: elsewhere.URL + "/moved"}); err != nil || tip != first {
		t.Errorf("%s, %v", tip, err)
	}
	_, err := get(t, mirror.Remote{URL: elsewhere.URL + "/moved", Credentials: &mirror.Credentials{Username: "u", Password: "secret"}})
	if err == nil || !strings.Contains(err.Error(), "must not see the credentials") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	down := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, server.Repository+"/info/refs?service=git-upload-pack", http.StatusFound)
	}))
	defer down.Close()
	if _, err := get(t, mirror.Remote{URL: down.URL, Credentials: &mirror.Credentials{CACertificates: authorityOf(down)}}); err == nil || !strings.Contains(err.Error(), "not followed") {
		t.Errorf("from https to http: %v", err)
	}
}

func TestBearerToken(t *testing.T) {
	r, first := repoWithCommit(t)
	at := serve(t, r, func(req *http.Request) bool { return req.Header.Get("Authorization") == "Bearer secret" })
	if tip, err := get(t, mirror.Remote{URL: at, Credentials: &mirror.Credentials{BearerToken: "secret"}}); err != nil || tip != first {
		t.Errorf("%s, %v", tip, err)
	}
	_, err := get(t, mirror.Remote{URL: at, Credentials: &mirror.Credentials{BearerToken: "expired"}, ConfiguredIn: "GitRepository apps/podinfo"})
	if err == nil || !strings.Contains(err.Error(), "check spec.secretRef of GitRepository apps/podinfo") || strings.Contains(err.Error(), "Bearer") {
		t.Errorf("error %v", err)
	}
}

// TestProxy reaches a host that only the proxy knows.
func TestProxy(t *testing.T) {
	r, first := repoWithCommit(t)
	server := gitliar.New(t, r.Dir, true)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var used atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := parseProxyAuth(req)
		if req.Method != http.MethodConnect || user != "u" || password != "secret" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		used.Add(1)
		tunnel(w, u.Host)
	}))
	defer proxy.Close()
	with := strings.Replace(proxy.URL, "http://", "http://u:secret@", 1)
	c := &mirror.Credentials{CACertificates: authorityOf(server.Server), Proxy: with}
	// The certificate is for example.com as well.
	if tip, err := get(t, mirror.Remote{URL: "https://example.com/.git", Credentials: c}); err != nil || tip != first || used.Load() == 0 {
		t.Errorf("%s, %v, used %d times", tip, err, used.Load())
	}
	c.Proxy = strings.Replace(with, "u:secret", "u:wrong", 1)
	if _, err := get(t, mirror.Remote{URL: "https://example.com/.git", Credentials: c}); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("error %v", err)
	}
}

func parseProxyAuth(req *http.Request) (user, password string, ok bool) {
	as := &http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}
	return as.BasicAuth()
}

func tunnel(w http.ResponseWriter, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer out.Close()
	w.WriteHeader(http.StatusOK)
	in, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	go func() { _, _ = io.Copy(out, in) }()
	_, _ = io.Copy(in, out)
}

// TestReference finds what a reference names.
func TestReference(t *testing.T) {
	r, first := repoWithCommit(t)
	r.Git("tag", "v1.0.0")
	r.Write("a", "two")
	second := r.Commit(nil, "second")
	r.Git("tag", "-a", "-m", "a tag", "v1.2.0")
	tag := strings.TrimSpace(r.Git("rev-parse", "v1.2.0"))
	r.Write("a", "three")
	third := r.Commit(nil, "third")
	r.Git("tag", "v2.0.0")
	r.Git("update-ref", "refs/pull/7/head", first)
	for name, at := range map[string]string{"file": r.Dir, "http": serve(t, r, nil)} {
		for _, c := range []struct {
			ref  mirror.Reference
			want mirror.Fetched
		}{
			{mirror.Reference{Branch: "main"}, mirror.Fetched{Commit: third, Ref: "refs/heads/main"}},
			{mirror.Reference{Tag: "v1.0.0"}, mirror.Fetched{Commit: first, Ref: "refs/tags/v1.0.0"}},
			{mirror.Reference{Tag: "v1.2.0"}, mirror.Fetched{Commit: second, Ref: "refs/tags/v1.2.0", Tag: tag}},
			{mirror.Reference{SemVer: "1.x"}, mirror.Fetched{Commit: second, Ref: "refs/tags/v1.2.0", Tag: tag}},
			{mirror.Reference{SemVer: ">=1.0.0", Tag: "v1.0.0"}, mirror.Fetched{Commit: third, Ref: "refs/tags/v2.0.0"}},
			{mirror.Reference{Name: "refs/pull/7/head"}, mirror.Fetched{Commit: first, Ref: "refs/pull/7/head"}},
			{mirror.Reference{Branch: "main", Commit: second}, mirror.Fetched{Commit: second, Ref: "refs/heads/main"}},
		} {
			m := open(t, mirror.Limits{})
			for range 2 { // the second time from what is there
				got, err := m.FetchReference(context.Background(), mirror.Remote{URL: at, Reference: c.ref})
				if err != nil || got != c.want {
					t.Errorf("%s %s: %+v, %v; want %+v", name, c.ref, got, err, c.want)
				}
			}
			if c.want.Tag == "" {
				continue
			}
			if text, err := m.Object(mirror.TagObject, tag); err != nil || !strings.Contains(string(text), "a tag") {
				t.Errorf("tag %q, %v", text, err)
			}
		}
		for _, c := range []struct {
			ref  mirror.Reference
			want string
		}{
			{mirror.Reference{}, `has no branch "master", only main`},
			{mirror.Reference{SemVer: ">=3"}, "has no tag in the range >=3"},
			{mirror.Reference{SemVer: "newest"}, `version range "newest"`},
			{mirror.Reference{Branch: "main", Commit: strings.Repeat("1", 40)}, "is not in the history of refs/heads/main"},
			{mirror.Reference{Commit: "abc"}, "not a full commit id"},
		} {
			if _, err := open(t, mirror.Limits{}).FetchReference(context.Background(), mirror.Remote{URL: at, Reference: c.ref}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: error %v, want %q", name, c.ref, err, c.want)
			}
		}
	}
}
