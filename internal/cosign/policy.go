package cosign

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Policy is whom to believe. One signature by any key or any identity is enough.
type Policy struct {
	keys       []key
	identities []verify.PolicyOption
	trusted    *root.TrustedRoot
	demands    Demands
}

// Demands are what a policy asks for beyond, or less than, its default.
type Demands struct {
	// Logged asks that signatures by keys are in a transparency log too,
	// Timestamped that they carry a time stamp of an authority (RFC 3161). Both
	// need a trusted root.
	Logged, Timestamped bool
	// IgnoreCertificateLog believes certificates that are in no log of
	// certificates, although the trusted root knows one.
	IgnoreCertificateLog bool
	// TrustedRoot is trusted_root.json for signatures by keys.
	TrustedRoot []byte
	// Hash is what keys sign a digest of. Default SHA-256.
	Hash crypto.Hash
}

// key is a public key with the name that results and errors call it.
type key struct {
	name     string
	verifier signature.Verifier
}

// Identity is who must be named in the certificate of a signature. Issuer and
// Subject are regular expressions that match anywhere; ^ and $ bind them.
type Identity struct {
	// Issuer is who vouched for the subject, such as the address of an OpenID
	// Connect provider.
	Issuer string
	// Subject is an e-mail address or a URI.
	Subject string
	// ExactIssuer and ExactSubject are compared as they are.
	ExactIssuer, ExactSubject string
}

// ByKeys is a policy that believes the holders of keys. Each value is one or
// more PEM public keys, or certificates whose keys count; the names are for
// messages. With keys no transparency log entry is needed, unless it is demanded.
func ByKeys(keys map[string][]byte, demands ...Demands) (*Policy, error) {
	p := &Policy{}
	for _, d := range demands {
		p.demands = d
	}
	if err := p.trustForKeys(); err != nil {
		return nil, err
	}
	for name, text := range keys {
		for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return nil, fmt.Errorf("%s holds something that is not a PEM public key", name)
			}
			k, err := newKey(name, block, p.demands.Hash)
			if err != nil {
				return nil, err
			}
			p.keys = append(p.keys, k)
		}
	}
	if len(p.keys) == 0 {
		return nil, errors.New("there is no public key; add one whose name ends in .pub")
	}
	return p, nil
}

// trustForKeys reads the trusted root that log entries or time stamps of
// signatures by keys need.
func (p *Policy) trustForKeys() error {
	d := p.demands
	if !d.Logged && !d.Timestamped {
		return nil
	}
	trusted, err := root.NewTrustedRootFromJSON(d.TrustedRoot)
	switch {
	case err != nil:
		return fmt.Errorf("the trusted root cannot be read: %w", err)
	case d.Logged && len(trusted.RekorLogs()) == 0:
		return errors.New("the trusted root has no transparency log, and an entry in one is demanded")
	case d.Timestamped && len(trusted.TimestampingAuthorities()) == 0:
		return errors.New("the trusted root has no time-stamp authority, and a time stamp is demanded")
	}
	p.trusted = trusted
	return nil
}

func newKey(name string, block *pem.Block, hash crypto.Hash) (key, error) {
	if hash == 0 {
		hash = crypto.SHA256
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem.EncodeToMemory(block))
	if err != nil {
		return key{}, fmt.Errorf("%s holds something that is not a public key: %w", name, err)
	}
	verifier, err := signature.LoadVerifier(public, hash)
	if err != nil {
		return key{}, fmt.Errorf("%s: keys of this kind are not supported: %w", name, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return key{}, fmt.Errorf("%s: %w", name, err)
	}
	sum := sha256.Sum256(der)
	return key{name: name + " (SHA-256 " + hex.EncodeToString(sum[:8]) + ")", verifier: verifier}, nil
}

// ByIdentities is a policy that believes who is named in certificates, under a
// Sigstore trusted root (trusted_root.json). There must be an identity: without,
// anybody who has an account somewhere would be believed.
func ByIdentities(trustedRoot []byte, identities ...Identity) (*Policy, error) {
	return ByIdentitiesThat(Demands{TrustedRoot: trustedRoot}, identities...)
}

// ByIdentitiesThat is [ByIdentities] with other demands than the default, which
// is to demand what the trusted root can prove.
func ByIdentitiesThat(demands Demands, identities ...Identity) (*Policy, error) {
	if len(identities) == 0 {
		return nil, errors.New("no identity is named, which would trust everybody; name issuer and subject")
	}
	trusted, err := root.NewTrustedRootFromJSON(demands.TrustedRoot)
	if err != nil {
		return nil, fmt.Errorf("the trusted root cannot be read: %w", err)
	}
	if len(trusted.RekorLogs())+len(trusted.TimestampingAuthorities()) == 0 {
		return nil, errors.New("the trusted root has neither a transparency log nor a time-stamp authority, so that nobody can say when a signature was made")
	}
	if demands.Timestamped && len(trusted.TimestampingAuthorities()) == 0 {
		return nil, errors.New("the trusted root has no time-stamp authority, and a time stamp is demanded")
	}
	p := &Policy{trusted: trusted, demands: demands}
	for _, i := range identities {
		id, err := verify.NewShortCertificateIdentity(i.ExactIssuer, i.Issuer, i.ExactSubject, i.Subject)
		if err != nil {
			return nil, fmt.Errorf("the identity of issuer %q and subject %q: %w", i.ExactIssuer+i.Issuer, i.ExactSubject+i.Subject, err)
		}
		p.identities = append(p.identities, verify.WithCertificateIdentity(id))
	}
	return p, nil
}

// byIdentity says that identities are believed, and not keys.
func (p *Policy) byIdentity() bool { return len(p.identities) > 0 }

// certified returns a verifier of signatures with certificates: what the trusted
// root has is demanded.
func (p *Policy) certified() (*verify.Verifier, error) {
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if p.demands.Timestamped {
		options = append(options, verify.WithSignedTimestamps(1))
	}
	if len(p.trusted.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(p.trusted.CTLogs()) > 0 && !p.demands.IgnoreCertificateLog {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return verify.NewVerifier(p.trusted, options...)
}

// keyed returns a verifier of bundles that were signed with a plain key.
func (p *Policy) keyed(k key) (*verify.Verifier, error) {
	var material root.TrustedMaterial = root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(k.verifier, time.Time{}, time.Time{}), nil
	})
	if p.trusted == nil {
		return verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	}
	material = root.TrustedMaterialCollection{material, p.trusted}
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if p.demands.Logged {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if p.demands.Timestamped {
		options = append(options, verify.WithSignedTimestamps(1))
	}
	return verify.NewVerifier(material, options...)
}
