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
}

// key is a public key with the name that results and errors call it.
type key struct {
	name     string
	verifier signature.Verifier
}

// Identity is who must be named in the certificate of a signature. Both fields
// are regular expressions that match anywhere; ^ and $ bind them.
type Identity struct {
	// Issuer is who vouched for the subject, such as the address of an OpenID
	// Connect provider.
	Issuer string
	// Subject is an e-mail address or a URI.
	Subject string
}

// ByKeys is a policy that believes the holders of keys. Each value is one or
// more PEM public keys, or certificates whose keys count; the names are for
// messages. With keys no transparency log entry is needed.
func ByKeys(keys map[string][]byte) (*Policy, error) {
	p := &Policy{}
	for name, text := range keys {
		for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return nil, fmt.Errorf("%s holds something that is not a PEM public key", name)
			}
			k, err := newKey(name, block)
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

func newKey(name string, block *pem.Block) (key, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem.EncodeToMemory(block))
	if err != nil {
		return key{}, fmt.Errorf("%s holds something that is not a public key: %w", name, err)
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
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
	if len(identities) == 0 {
		return nil, errors.New("no identity is named, which would trust everybody; name issuer and subject")
	}
	trusted, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("the trusted root cannot be read: %w", err)
	}
	if len(trusted.RekorLogs())+len(trusted.TimestampingAuthorities()) == 0 {
		return nil, errors.New("the trusted root has neither a transparency log nor a time-stamp authority, so that nobody can say when a signature was made")
	}
	p := &Policy{trusted: trusted}
	for _, i := range identities {
		id, err := verify.NewShortCertificateIdentity("", i.Issuer, "", i.Subject)
		if err != nil {
			return nil, fmt.Errorf("the identity of issuer %q and subject %q: %w", i.Issuer, i.Subject, err)
		}
		p.identities = append(p.identities, verify.WithCertificateIdentity(id))
	}
	return p, nil
}

// certified returns a verifier of signatures with certificates: what the trusted
// root has is demanded.
func (p *Policy) certified() (*verify.Verifier, error) {
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if len(p.trusted.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(p.trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return verify.NewVerifier(p.trusted, options...)
}

// keyed returns a verifier of bundles that were signed with a plain key.
func (k key) keyed() (*verify.Verifier, error) {
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(k.verifier, time.Time{}, time.Time{}), nil
	})
	return verify.NewVerifier(material, verify.WithNoObserverTimestamps())
}
