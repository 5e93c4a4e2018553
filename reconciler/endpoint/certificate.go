package endpoint

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// certificate is the server's identity: given in files, or made by the node.
type certificate struct {
	selfMade          bool
	certFile, keyFile string

	mu    sync.Mutex
	pair  *tls.Certificate
	stamp string // of the files that pair was read from
}

// openCertificate reads the configured certificate, or the node's own, which it
// makes at the first start and whenever the node's name or address changed.
func openCertificate(cfg Config) (*certificate, error) {
	c := &certificate{certFile: cfg.Boot.CertificateFile, keyFile: cfg.Boot.KeyFile}
	if c.certFile != "" {
		if _, err := c.get(nil); err != nil {
			return nil, err
		}
		return c, nil
	}
	c.selfMade = true
	pair, err := ownCertificate(filepath.Join(cfg.StateDir, "trust", "endpoint.pem"), cfg.MachineName, cfg.NodeIP)
	if err != nil {
		return nil, err
	}
	c.pair = pair
	return c, nil
}

// get is for tls.Config. Files that changed are read again; while they cannot
// be read the old ones are used.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.selfMade {
		return c.pair, nil
	}
	stamp := fileStamp(c.certFile) + fileStamp(c.keyFile)
	if c.pair != nil && stamp == c.stamp {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.pair, c.stamp = &pair, stamp
	case c.pair == nil:
		return nil, fmt.Errorf("read the endpoint's certificate: %w; correct endpoint.certificateFile and endpoint.keyFile in the boot configuration", err)
	}
	return c.pair, nil
}

func fileStamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "missing "
	}
	var inode uint64
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino // a file renamed over another may be as old and as long
	}
	return fmt.Sprintf("%d %d %d ", inode, info.ModTime().UnixNano(), info.Size())
}

// describe returns the fingerprint and the PEM of the certificate in use.
func (c *certificate) describe() (fingerprint, text string) {
	pair, err := c.get(nil)
	if err != nil {
		return "", ""
	}
	sum := sha256.Sum256(pair.Certificate[0])
	var chain bytes.Buffer
	for _, der := range pair.Certificate {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes everything
	}
	return "sha256:" + hex.EncodeToString(sum[:]), chain.String()
}

// ownCertificate reads the node's own certificate from a file that holds it and
// its key. A certificate that lacks a name is made anew with the same key, so
// that whoever pinned the key need not be told.
func ownCertificate(file, name, address string) (*tls.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the endpoint's own certificate: %w", err)
	}
	var key *ecdsa.PrivateKey
	if err == nil {
		pair, err := tls.X509KeyPair(data, data)
		if err != nil {
			return nil, fmt.Errorf("read the endpoint's own certificate %s: %w; remove the file to have a new one made, whose fingerprint will differ", file, err)
		}
		if covers(pair.Leaf, name, address) {
			return &pair, nil
		}
		key, _ = pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, fmt.Errorf("make the endpoint's key: %w", err)
		}
	}
	if data, err = selfSigned(key, name, address); err != nil {
		return nil, fmt.Errorf("make the endpoint's certificate: %w", err)
	}
	if err := durable.WriteFile(file, data, 0o600); err != nil {
		return nil, fmt.Errorf("keep the endpoint's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("make the endpoint's certificate: %w", err)
	}
	return &pair, nil
}

func covers(c *x509.Certificate, name, address string) bool {
	return (name == "" || c.VerifyHostname(name) == nil) && (address == "" || c.VerifyHostname(address) == nil)
}

// selfSigned makes a certificate that is valid as long as certificates can be:
// it is trusted by its fingerprint, and a date would only be an outage in
// waiting on a machine whose clock may be wrong.
func selfSigned(key *ecdsa.PrivateKey, name, address string) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "bothy endpoint", Organization: []string{name}},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true,
	}
	if name != "" {
		template.DNSNames = append(template.DNSNames, name)
	}
	if ip := net.ParseIP(address); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}
