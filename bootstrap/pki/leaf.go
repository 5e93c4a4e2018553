package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

const (
	// LeafLife is how long a leaf is valid after it was issued.
	LeafLife = 30 * 24 * time.Hour
	// Renewal is due when this much of a leaf's life is left...
	renewBefore = LeafLife / 3
	// ...or up to this much earlier, by a random amount fixed in the
	// certificate, so that the leaves of a node are not all replaced at once.
	renewJitter = LeafLife / 30
	// backdate lets peers whose clocks are behind accept a new leaf.
	backdate = 24 * time.Hour
)

// usage is what a leaf may be used for: never both.
type usage = x509.ExtKeyUsage

const (
	client  = x509.ExtKeyUsageClientAuth
	serving = x509.ExtKeyUsageServerAuth
)

// uidOID is the attribute from which the API server reads a user's UID.
var uidOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// A leafSpec is a certificate as it should be.
type leafSpec struct {
	name       string
	commonName string
	groups     []string
	uid        string
	usage      usage
	dns        []string
	ips        []net.IP
	frontProxy bool // signed by the front-proxy CA
}

// issue signs a leaf with a fresh key and returns both in one PEM file.
func (a *authority) issue(spec leafSpec, now moment) ([]byte, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	cert, err := a.sign(spec, &key.PublicKey, LeafLife, now)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return append(encodeCertificate(cert), keyPEM...), cert, nil
}

// sign makes a leaf for a key.
func (a *authority) sign(spec leafSpec, key *ecdsa.PublicKey, life time.Duration, now moment) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.best.Add(life)
	if notAfter.After(a.cert.NotAfter) {
		notAfter = a.cert.NotAfter
	}
	subject := pkix.Name{CommonName: spec.commonName, Organization: spec.groups}
	if spec.uid != "" {
		subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: uidOID, Value: spec.uid}}
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		// Valid by the clock as it is and by the true time.
		NotBefore:             earlier(now.clock, now.best).Add(-backdate).UTC(),
		NotAfter:              notAfter.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{spec.usage},
		BasicConstraintsValid: true,
		DNSNames:              spec.dns,
		IPAddresses:           spec.ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	return cert, nil
}

func encodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// judge returns the certificate in data, or why it has to be issued anew.
func (a *authority) judge(spec leafSpec, data []byte, now moment) (*x509.Certificate, error) {
	block := findBlock(data, "CERTIFICATE")
	if block == nil {
		return nil, errors.New("damaged: holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("damaged: key and certificate do not belong together")
	}
	if err := cert.CheckSignatureFrom(a.cert); err != nil {
		return nil, fmt.Errorf("not signed by the current CA: %w", err)
	}
	if err := spec.matches(cert); err != nil {
		return nil, err
	}
	switch {
	case now.clock.Before(cert.NotBefore):
		return nil, fmt.Errorf("not valid before %s by this machine's clock", cert.NotBefore.Format(time.RFC3339))
	case now.clock.After(cert.NotAfter) || now.best.After(cert.NotAfter):
		return nil, fmt.Errorf("expired on %s", cert.NotAfter.Format(time.RFC3339))
	case !now.best.Before(renewAt(cert)):
		return nil, fmt.Errorf("due for renewal, expires on %s", cert.NotAfter.Format(time.RFC3339))
	}
	return cert, nil
}

func (s leafSpec) matches(cert *x509.Certificate) error {
	sameIP := func(a, b net.IP) bool { return a.Equal(b) }
	sameDNS := func(a, b string) bool { return a == b }
	switch {
	case cert.Subject.CommonName != s.commonName:
		return errors.New("subject changed")
	case !sameSet(cert.Subject.Organization, s.groups, sameDNS):
		return errors.New("groups changed")
	case !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{s.usage}):
		return errors.New("usage changed")
	case !sameSet(cert.DNSNames, s.dns, sameDNS) || !sameSet(cert.IPAddresses, s.ips, sameIP):
		return errors.New("names or addresses changed")
	}
	return nil
}

func sameSet[T any](a, b []T, equal func(T, T) bool) bool {
	within := func(x, y []T) bool {
		for _, v := range x {
			if !slices.ContainsFunc(y, func(w T) bool { return equal(v, w) }) {
				return false
			}
		}
		return true
	}
	return within(a, b) && within(b, a)
}

// renewAt is when cert should be replaced. It is counted from the end: the
// start may be decades back when the clock was not set.
func renewAt(cert *x509.Certificate) time.Time {
	return renewBeforeEnd(cert, renewBefore, renewJitter)
}

func renewBeforeEnd(cert *x509.Certificate, before, jitter time.Duration) time.Time {
	serial := cert.SerialNumber.Bytes()
	var spread time.Duration
	if len(serial) > 0 {
		spread = jitter * time.Duration(serial[len(serial)-1]) / 256
	}
	return cert.NotAfter.Add(-before - spread)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// UID is the user's UID that a certificate names: the identity of the machine that it
// was given to, "" in those of the machine that has the CA.
func UID(cert *x509.Certificate) string {
	for _, n := range cert.Subject.Names {
		if text, ok := n.Value.(string); ok && n.Type.Equal(uidOID) {
			return text
		}
	}
	return ""
}
