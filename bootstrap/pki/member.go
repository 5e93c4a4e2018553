package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/internal/durable"
)

// MemberStore is the PKI directory of a node without a control plane. Its keys are made here
// and leave the node never.
type MemberStore struct {
	paths paths.Paths
	// server is the URL in kubeconfigs, name what the server's certificate is valid for.
	server, name string
	clock        func() time.Time
}

// NewMemberStore returns the store. Kubeconfigs point to server, whose certificate must be valid for
// the API server's usual name. clock is time.Now outside tests.
func NewMemberStore(p paths.Paths, server string, clock func() time.Time) *MemberStore {
	return &MemberStore{paths: p, server: server, name: "kubernetes.default.svc", clock: clock}
}

// KubeletServing is the name of the kubelet's serving certificate.
const KubeletServing = "kubelet-serving"

// RenewAt is when the certificates of a node with these addresses should be replaced: the zero time if one is missing,
// damaged, expired, not from the CA that is kept, or for a server that the node is not any more, which the error then says.
func (m *MemberStore) RenewAt(names []string, node string, addresses []netip.Addr) (time.Time, error) {
	ca, err := loadCertificate(m.paths.ClusterCA())
	if err != nil {
		return time.Time{}, err
	}
	var earliest time.Time
	for _, name := range names {
		cert, err := m.judge(ca, name)
		if err == nil {
			err = serves(cert, node, addresses)
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("certificate %s: %w", name, err)
		}
		if at := renewBeforeEnd(cert, MemberLife/3, MemberLife/30); earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
	}
	return earliest, nil
}

func (m *MemberStore) judge(ca *x509.Certificate, name string) (*x509.Certificate, error) {
	data, err := os.ReadFile(m.paths.Certificate(name))
	if err != nil {
		return nil, err
	}
	block := findBlock(data, "CERTIFICATE")
	if block == nil {
		return nil, errors.New("damaged: holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("not signed by the cluster CA: %w", err)
	}
	key, err := parseKey(data)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("damaged: key and certificate do not belong together")
	}
	if now := m.clock(); now.After(cert.NotAfter) {
		return nil, fmt.Errorf("expired at %s", cert.NotAfter.Format(time.RFC3339))
	}
	return cert, nil
}

// serves says what a server's certificate is valid for that its node is not.
func serves(cert *x509.Certificate, node string, addresses []netip.Addr) error {
	for _, name := range cert.DNSNames {
		if name != node {
			return fmt.Errorf("is for node %s", name)
		}
	}
	for _, ip := range cert.IPAddresses {
		if a, _ := netip.AddrFromSlice(ip); !slices.Contains(addresses, a.Unmap()) {
			return fmt.Errorf("is for the address %s, which is not the node's", ip)
		}
	}
	return nil
}

// Key is a new key that waits for its certificate.
type Key struct {
	// Name is the certificate's.
	Name string
	// Request is a PKCS #10 request, DER, which proves that its sender has the key. It names nobody.
	Request []byte

	key *ecdsa.PrivateKey
}

// NewKey makes a key; it is in memory only.
func NewKey(name string) (*Key, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{}}, key)
	if err != nil {
		return nil, fmt.Errorf("request a certificate: %w", err)
	}
	return &Key{Name: name, Request: request, key: key}, nil
}

// Put keeps a CA and certificates for keys, with a kubeconfig for each that is for a client. Nothing is
// written unless all of them fit together.
func (m *MemberStore) Put(ca []byte, keys []*Key, certificates map[string][]byte) error {
	block := findBlock(ca, "CERTIFICATE")
	if block == nil {
		return errors.New("the CA that was sent is not a certificate")
	}
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !authority.IsCA {
		return errors.New("the CA that was sent is not one")
	}
	files := map[string][]byte{}
	for _, k := range keys {
		cert, keyPEM, err := k.fits(authority, certificates[k.Name])
		if err != nil {
			return fmt.Errorf("the certificate %s that was sent: %w", k.Name, err)
		}
		files[m.paths.Certificate(k.Name)] = append(encodeCertificate(cert), keyPEM...)
		if !slices.Contains(cert.ExtKeyUsage, client) {
			continue
		}
		if files[m.paths.Kubeconfig(k.Name)], err = m.kubeconfig(k.Name); err != nil {
			return err
		}
	}
	if err := durable.MkdirAll(m.paths.PKI(), 0o700); err != nil {
		return fmt.Errorf("create PKI directory: %w", err)
	}
	if _, err := durable.WriteFileIfChanged(m.paths.ClusterCA(), encodeCertificate(authority), 0o644); err != nil {
		return err
	}
	for file, data := range files {
		if _, err := durable.WriteFileIfChanged(file, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (k *Key) fits(ca *x509.Certificate, certPEM []byte) (cert *x509.Certificate, keyPEM []byte, err error) {
	block := findBlock(certPEM, "CERTIFICATE")
	if block == nil {
		return nil, nil, errors.New("is missing")
	}
	if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, nil, err
	}
	if !k.key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("is for another key")
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(k.key)
	return cert, keyPEM, err
}

func (m *MemberStore) kubeconfig(identity string) ([]byte, error) {
	p := m.paths
	k := newKubeconfig(identity, m.server)
	k.Clusters[0].Cluster.CAFile, k.Clusters[0].Cluster.Name = p.ClusterCA(), m.name
	k.Users[0].User.CertFile, k.Users[0].User.KeyFile = p.Certificate(identity), p.Certificate(identity)
	data, err := yaml.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig of %s: %w", identity, err)
	}
	return data, nil
}
