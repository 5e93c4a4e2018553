package x509test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// Authority is a certificate authority with one intermediate.
type Authority struct {
	Root, Intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
}

// Identity is a certificate with its key.
type Identity struct {
	Cert      *x509.Certificate
	Authority *Authority
	Key       crypto.Signer
}

// Leaf describes a certificate to issue.
type Leaf struct {
	Email, URI string
	// Issuer is Sigstore's statement of who vouched for the subject.
	Issuer              string
	NotBefore, NotAfter time.Time
	// Usage is S/MIME's if zero.
	Usage x509.ExtKeyUsage
	// RSA asks for an RSA key instead of an ECDSA one.
	RSA bool
}

// NewAuthority makes an authority that has been valid for years.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{}
	rootKey := newKey(t)
	a.Root = issue(t, authority(name+" root"), nil, &rootKey.PublicKey, rootKey)
	a.key = newKey(t)
	a.Intermediate = issue(t, authority(name+" intermediate"), a.Root, &a.key.PublicKey, rootKey)
	return a
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// Issue issues a certificate for a new key.
func (a *Authority) Issue(t testing.TB, l Leaf) *Identity {
	t.Helper()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: l.Email},
		NotBefore: l.NotBefore, NotAfter: l.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	if l.Usage != 0 {
		template.ExtKeyUsage[0] = l.Usage
	}
	if l.Email != "" {
		template.EmailAddresses = []string{l.Email}
	}
	if l.URI != "" {
		u, err := url.Parse(l.URI)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	if l.Issuer != "" {
		value, err := asn1.MarshalWithParams(l.Issuer, "utf8")
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(l.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value},
		}
	}
	var key crypto.Signer = newKey(t)
	if l.RSA {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	return &Identity{Cert: issue(t, template, a.Intermediate, key.Public(), a.key), Authority: a, Key: key}
}

// PEM is what certificateAuthorities of a signer lists.
func (a *Authority) PEM() string { return encode("CERTIFICATE", a.Root.Raw) }

// TrustedRoot is a Sigstore trusted root with this authority and a log.
func (a *Authority) TrustedRoot(t testing.TB, w *Witness) string {
	t.Helper()
	fulcio := &root.FulcioCertificateAuthority{
		Root: a.Root, Intermediates: []*x509.Certificate{a.Intermediate},
		ValidityPeriodStart: a.Root.NotBefore, URI: "https://fulcio.localhost",
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{fulcio}, nil, w.TrustedStamps(), w.trustedLogs())
	if err != nil {
		t.Fatal(err)
	}
	text, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Files writes certificate, key and intermediate as PEM files NAME.crt,
// NAME.key and NAME.ca in dir, for programs that sign.
func (i *Identity) Files(t testing.TB, dir, name string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, text := range map[string]string{
		".crt": encode("CERTIFICATE", i.Cert.Raw),
		".key": encode("PRIVATE KEY", key),
		".ca":  encode("CERTIFICATE", i.Authority.Intermediate.Raw),
	} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func issue(t testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
