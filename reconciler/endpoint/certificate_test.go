package endpoint

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// client trusts the endpoint's certificate and nothing else.
func (s *served) client(t *testing.T) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.Status().Certificate)) {
		t.Fatal("no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestOwnCertificateOutlivesRestartsAndRenaming(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trust", "endpoint.pem")
	first, err := ownCertificate(file, "node-1", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-1", "192.0.2.1", "localhost", "127.0.0.1"} {
		if err := first.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	again, err := ownCertificate(file, "node-1", "192.0.2.1")
	if err != nil || !bytes.Equal(again.Certificate[0], first.Certificate[0]) {
		t.Fatalf("another certificate after a restart: %v", err)
	}
	moved, err := ownCertificate(file, "node-1", "192.0.2.99")
	if err != nil {
		t.Fatal(err)
	}
	if err := moved.Leaf.VerifyHostname("192.0.2.99"); err != nil {
		t.Error(err)
	}
	if !moved.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(first.Leaf.PublicKey) {
		t.Error("the key changed with the address")
	}
	if err := os.WriteFile(file, []byte("half a cert"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ownCertificate(file, "node-1", ""); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestGivenCertificateIsReadAgainWhenItChanges(t *testing.T) {
	_, certFile, keyFile := certificateFor(t, "one")
	_, otherCert, otherKey := certificateFor(t, "two")
	c, err := openCertificate(Config{Boot: &v1alpha1.BootEndpoint{CertificateFile: certFile, KeyFile: keyFile}})
	if err != nil || c.selfMade {
		t.Fatal(err)
	}
	before, _ := c.describe()
	for from, to := range map[string]string{otherCert: certFile, otherKey: keyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := c.describe()
	if before == after || !strings.HasPrefix(after, "sha256:") {
		t.Errorf("%s, then %s", before, after)
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if still, _ := c.describe(); still != after {
		t.Error("files that are gone took the certificate with them")
	}
	if _, err := openCertificate(Config{Boot: &v1alpha1.BootEndpoint{CertificateFile: certFile, KeyFile: keyFile}}); err == nil || !strings.Contains(err.Error(), "endpoint.certificateFile") {
		t.Errorf("%v", err)
	}
}
