package gitserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// Server serves the repositories of a directory.
type Server struct {
	address *netlink.Addr
	tls     net.Listener
	plain   net.Listener
	http    *http.Server
	ca      []byte

	mu    sync.Mutex
	fault Fault
	// released is closed when the fault changes: stalled requests end with it.
	released chan struct{}
	requests int
}

// Start serves the repositories below dir. Close must be called in the end: it
// removes the address.
func Start(dir string) (*Server, error) {
	backend, err := backendPath()
	if err != nil {
		return nil, err
	}
	s := &Server{released: make(chan struct{})}
	s.http = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: s.misbehaving(&cgi.Handler{
			Path: backend,
			Env: []string{
				"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
				// What public servers offer.
				"GIT_CONFIG_COUNT=2",
				"GIT_CONFIG_KEY_0=uploadpack.allowFilter", "GIT_CONFIG_VALUE_0=true",
				"GIT_CONFIG_KEY_1=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_1=true",
			},
			// Both report clients that go away, which is what they do here.
			Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
		}),
	}
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, l := range []net.Listener{s.tls, s.plain} {
		go func() { _ = s.http.Serve(l) }() // ends with Close
	}
	return s, nil
}

func backendPath() (string, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return "", fmt.Errorf("ask git where its programs are: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), nil
}

func (s *Server) listen() error {
	address, err := takeAddress()
	if err != nil {
		return err
	}
	s.address = address
	certificate, err := s.certificate()
	if err != nil {
		return err
	}
	if s.plain, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	s.tls, err = tls.Listen("tcp", net.JoinHostPort(s.address.IP.String(), "0"), &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
	})
	return err
}

func (s *Server) certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "git server of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{s.address.IP},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the server's certificate: %w", err)
	}
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// URL is where nodes find a repository, given its path below the directory.
func (s *Server) URL(repository string) string {
	return "https://" + s.tls.Addr().String() + "/" + repository
}

// PlainURL is the same for clients on this machine, without TLS.
func (s *Server) PlainURL(repository string) string {
	return "http://" + s.plain.Addr().String() + "/" + repository
}

// CA is the certificate, PEM, by which clients know the server.
func (s *Server) CA() []byte { return s.ca }

// Credentials is a credentials file for nodes: it trusts the server, and has
// the password if that is not empty.
func (s *Server) Credentials(password string) string {
	var b strings.Builder
	if password != "" {
		fmt.Fprintf(&b, "username: site\npassword: %q\n", password)
	}
	b.WriteString("caCertificates: |\n")
	for line := range strings.Lines(string(s.ca)) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// Requests is how many requests have begun so far.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Close ends all requests and takes the address away.
func (s *Server) Close() error {
	s.Misbehave(Fault{})
	err := s.http.Close()
	for _, l := range []net.Listener{s.tls, s.plain} {
		if l != nil {
			_ = l.Close() // closed by the server, if that began to serve
		}
	}
	return errors.Join(err, returnAddress(s.address))
}
