package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

// MemberLife is how long the certificates of other nodes are valid. It is short because a node
// can always have new ones, unless it is not to have any.
const MemberLife = 24 * time.Hour

// Request is a certificate that another node shall get.
type Request struct {
	// Key is the node's; the curve is P-256.
	Key *ecdsa.PublicKey
	// User, Groups and UID are what the API server sees.
	User   string
	Groups []string
	UID    string
	// Serving is for a server, valid for DNSNames and IPs; otherwise it is for a client.
	Serving  bool
	DNSNames []string
	IPs      []netip.Addr
}

// Issuer signs with the cluster CA of a [Store]. It keeps no key in memory.
type Issuer struct {
	paths paths.Paths
	clock func() time.Time
}

// NewIssuer returns an issuer for the CA that is, or will be, at p. clock is time.Now outside tests.
func NewIssuer(p paths.Paths, clock func() time.Time) *Issuer {
	return &Issuer{paths: p, clock: clock}
}

// Batch is several certificates at one time, and the CA that signed them.
type Batch struct {
	// CA and Certificates are PEM; the latter in the order of the requests.
	CA           []byte
	Certificates [][]byte
}

// Issue signs all requests or none.
func (i *Issuer) Issue(requests []Request) (*Batch, error) {
	a, err := loadAuthority(i.paths.ClusterCA(), i.paths.ClusterCAKey())
	if err != nil {
		return nil, fmt.Errorf("read the cluster CA: %w", err)
	}
	now := readTime(i.clock().Round(0), loadLastSeen(i.paths.PKI()))
	if now.best.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("the cluster CA expired on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	batch := &Batch{CA: a.certPEM()}
	for _, r := range requests {
		if r.Key == nil || r.Key.Curve != elliptic.P256() {
			return nil, errors.New("a certificate is wanted for a key that is not on the curve P-256")
		}
		spec := leafSpec{commonName: r.User, groups: r.Groups, uid: r.UID, usage: client}
		if r.Serving {
			spec.usage, spec.dns, spec.ips = serving, r.DNSNames, toIPs(r.IPs)
		}
		cert, err := a.sign(spec, r.Key, MemberLife, now)
		if err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", r.User, err)
		}
		batch.Certificates = append(batch.Certificates, encodeCertificate(cert))
	}
	return batch, nil
}
