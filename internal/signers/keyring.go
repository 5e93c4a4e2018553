package signers

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// The kinds of signers, as written in v1alpha1.Signer.
const (
	KindSSH     = "ssh"
	KindOpenPGP = "openpgp"
	KindX509    = "x509"
)

// Verified says who signed a commit.
type Verified struct {
	// Signer is the name in the trust root.
	Signer string `json:"signer"`
	// Kind is ssh, openpgp or x509.
	Kind string `json:"kind"`
	// Fingerprint is "SHA256:…" for SSH, the primary key's fingerprint in
	// upper-case hexadecimal for OpenPGP, and the SHA-256 of the certificate,
	// written likewise, for x509.
	Fingerprint string `json:"fingerprint"`
	// Identity is whom an x509 certificate names, and by whose word.
	Identity string `json:"identity,omitempty"`
}

// Keyring is the keys of one trust root. It does not change after NewKeyring
// and may be used by several goroutines.
type Keyring struct {
	keys []*key
}

type key struct {
	signer      v1alpha1.Signer
	fingerprint string
	ssh         ssh.PublicKey
	pgp         *openpgp.Entity
	x509        *certified
}

// NewKeyring parses the signers' public keys. Errors name the signer. Two
// signers may not share a name or a key: a threshold would count one person
// twice.
func NewKeyring(signers []v1alpha1.Signer) (*Keyring, error) {
	ring := &Keyring{}
	for _, s := range signers {
		k, err := parseKey(s)
		if err != nil {
			return nil, fmt.Errorf("signer %q: %w", s.Name, err)
		}
		for _, other := range ring.keys {
			if other.signer.Name == s.Name {
				return nil, fmt.Errorf("signer %q is listed twice; give each signer its own name", s.Name)
			}
			if other.fingerprint == k.fingerprint {
				return nil, fmt.Errorf("signers %q and %q have the same key; keep one of them", other.signer.Name, s.Name)
			}
		}
		ring.keys = append(ring.keys, k)
	}
	return ring, nil
}

func parseKey(s v1alpha1.Signer) (*key, error) {
	k := &key{signer: s}
	var err error
	switch s.Kind {
	case KindSSH:
		k.ssh, err = parseSSHKey(s.PublicKey)
		if err == nil {
			k.fingerprint = ssh.FingerprintSHA256(k.ssh)
		}
	case KindOpenPGP:
		k.pgp, err = parseOpenPGPKey(s.PublicKey)
		if err == nil {
			k.fingerprint = openPGPFingerprint(k.pgp)
		}
	case KindX509:
		k.x509, k.fingerprint, err = parseCertified(s)
	default:
		err = fmt.Errorf("unknown kind %q; use %s, %s or %s", s.Kind, KindSSH, KindOpenPGP, KindX509)
	}
	return k, err
}

// Verify says which signer made the commit's signature. now is the time at
// which keys must be valid; the commit's own time must lie within the signer's
// validity too, so that neither an old key nor a back-dated commit passes.
// Errors are of type *[Error].
func (r *Keyring) Verify(c *Commit, now time.Time) (*Verified, error) {
	armor := bytes.TrimLeft(c.Signature, "\n")
	var k *key
	var cert *x509.Certificate
	var err error
	switch {
	case len(armor) == 0:
		return nil, &Error{Class: Unsigned, Problem: "is not signed", Remedy: signAgain}
	case bytes.HasPrefix(armor, []byte("-----BEGIN SSH SIGNATURE-----")):
		k, err = r.verifySSH(c.Payload, armor)
	case bytes.HasPrefix(armor, []byte("-----BEGIN PGP SIGNATURE-----")):
		k, err = r.verifyOpenPGP(c.Payload, armor, now)
	case bytes.HasPrefix(armor, []byte("-----BEGIN SIGNED MESSAGE-----")):
		k, cert, err = r.verifyX509(c, armor, now)
	default:
		return nil, &Error{Class: Malformed, Problem: "has a signature of unknown format", Remedy: signAgain}
	}
	if err != nil {
		return nil, err
	}
	if err := k.validAt(now, "now"); err != nil {
		return nil, err
	}
	if err := k.validAt(c.CommitTime, "at the commit's time"); err != nil {
		return nil, err
	}
	who := &Verified{Signer: k.signer.Name, Kind: k.signer.Kind, Fingerprint: k.fingerprint}
	if cert != nil {
		who.Fingerprint, who.Identity = certificateFingerprint(cert), describeCertificate(cert)
	}
	return who, nil
}

func (k *key) validAt(t time.Time, when string) error {
	s := k.signer
	stamp := t.UTC().Format(time.RFC3339)
	if s.NotBefore != nil && t.Before(*s.NotBefore) {
		return &Error{
			Class:   Expired,
			Problem: fmt.Sprintf("is signed by %q, whose key is not valid %s (%s): it is valid from %s", s.Name, when, stamp, s.NotBefore.UTC().Format(time.RFC3339)),
			Remedy:  "check the clocks, or sign with a key that is valid",
		}
	}
	if s.NotAfter != nil && t.After(*s.NotAfter) {
		return &Error{
			Class:   Expired,
			Problem: fmt.Sprintf("is signed by %q, whose key is no longer valid %s (%s): it ended %s", s.Name, when, stamp, s.NotAfter.UTC().Format(time.RFC3339)),
			Remedy:  "sign with a key that is valid, or have another signer extend notAfter in trust/root.yaml",
		}
	}
	return nil
}

func unknownKey(fingerprint string) *Error {
	return &Error{
		Class:   UnknownKey,
		Problem: fmt.Sprintf("is signed by the key %s, which the trust root in force does not list", fingerprint),
		Remedy:  "sign with a listed key, or have a listed signer add this key to trust/root.yaml first",
	}
}
