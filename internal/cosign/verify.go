package cosign

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Verified is a signature that the policy believes.
type Verified struct {
	// Signer is the key, or subject and issuer.
	Signer string
	// Bundle says that the signature is a bundle, and not of the older format.
	Bundle bool
}

// Unsigned is why a digest is refused: no signature, or none that the policy
// believes.
type Unsigned struct {
	Digest string
	// PredicateType is that of the attestation that was looked for; empty for a
	// signature.
	PredicateType string
	// Reasons are of the signatures that were found, one each.
	Reasons []error
}

func (u *Unsigned) Error() string {
	what, remedy := "signature", "cosign sign"
	if u.PredicateType != "" {
		what, remedy = fmt.Sprintf("attestation of type %q", u.PredicateType), "cosign attest"
	}
	if len(u.Reasons) == 0 {
		return fmt.Sprintf("%s has no %s; sign it with: %s", u.Digest, what, remedy)
	}
	reasons := make([]string, 0, len(u.Reasons))
	for _, r := range u.Reasons {
		reasons = append(reasons, r.Error())
	}
	return fmt.Sprintf("%s has no trusted %s: %s", u.Digest, what, strings.Join(reasons, "; "))
}

// Verify looks for a signature of digest ("sha256:<hex>") that the policy
// believes. The error is an [*Unsigned] if there is none; any other says that it
// is not known, because something could not be read.
func Verify(ctx context.Context, r Repository, digest string, p *Policy) (*Verified, error) {
	found, unread := Collect(ctx, r, digest)
	if found == nil {
		return nil, unread
	}
	verified, err := Check(found, digest, p)
	if err == nil {
		return verified, nil
	}
	if unread != nil {
		return nil, unread
	}
	return nil, err
}

// Check looks for a signature of digest among what is attached to it. It reads
// nothing and asks nobody. The error is an [*Unsigned] if the policy believes
// none.
func Check(s *Signatures, digest string, p *Policy) (*Verified, error) {
	return look(s, digest, p, signPredicate, nil)
}

// CheckStatement looks for an attestation of digest: a statement with the given
// predicate type, by somebody whom the policy believes, that accept takes. The
// statement is an in-toto statement as JSON. The error is an [*Unsigned] if
// there is none.
func CheckStatement(s *Signatures, digest string, p *Policy, predicateType string, accept func(statement []byte) error) (*Verified, error) {
	return look(s, digest, p, predicateType, accept)
}

func look(s *Signatures, digest string, p *Policy, predicateType string, accept func([]byte) error) (*Verified, error) {
	raw, err := digestBytes(digest)
	if err != nil {
		return nil, err
	}
	c := &check{digest: digest, raw: raw, policy: p, predicateType: predicateType, accept: accept}
	if s == nil {
		return nil, c.unsigned()
	}
	for _, o := range s.Omitted {
		c.reasons = append(c.reasons, errors.New(o))
	}
	for _, b := range s.Bundles {
		if v := c.try("bundle "+b.Name, func() (*Verified, error) { return c.verifyBundle(b.Content) }); v != nil {
			return v, nil
		}
	}
	if predicateType == signPredicate {
		for _, a := range s.Payloads {
			if v := c.try("signature "+a.Name, func() (*Verified, error) { return c.verifyPayload(a.Content, a.Annotations) }); v != nil {
				return v, nil
			}
		}
		return nil, c.unsigned()
	}
	for _, a := range s.Envelopes {
		if v := c.try("attestation "+a.Name, func() (*Verified, error) { return c.verifyEnvelope(a.Content, a.Annotations) }); v != nil {
			return v, nil
		}
	}
	return nil, c.unsigned()
}

// check is the search for one signature or attestation of one digest.
type check struct {
	digest string
	raw    []byte
	policy *Policy
	// predicateType is what has to be stated; accept judges the statement.
	predicateType string
	accept        func(statement []byte) error
	reasons       []error
}

func (c *check) unsigned() *Unsigned {
	u := &Unsigned{Digest: c.digest, Reasons: c.reasons}
	if c.predicateType != signPredicate {
		u.PredicateType = c.predicateType
	}
	return u
}

// try notes why an attachment is not believed.
func (c *check) try(what string, do func() (*Verified, error)) *Verified {
	v, err := guarded(do)
	if err != nil {
		c.reasons = append(c.reasons, fmt.Errorf("%s: %w", what, err))
		return nil
	}
	return v
}

// manifest reads a manifest of signatures.
func (c *collector) manifest(ctx context.Context, reference string) (*manifest, error) {
	data, err := c.repository.Manifest(ctx, reference)
	if err != nil {
		return nil, err
	}
	m := &manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", reference, err)
	}
	return m, nil
}

// signer names who is in the certificate.
func signer(result *verify.VerificationResult) string {
	if result.Signature == nil || result.Signature.Certificate == nil {
		return ""
	}
	certificate := result.Signature.Certificate
	return certificate.SubjectAlternativeName + " by " + certificate.Issuer
}

// guarded turns a panic of a library that reads what strangers wrote into an
// error.
func guarded(do func() (*Verified, error)) (v *Verified, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("cannot be read: %v", p)
		}
	}()
	return do()
}

const sha256Prefix = "sha256:"

func isDigest(reference string) bool { return strings.HasPrefix(reference, sha256Prefix) }

func digestBytes(digest string) ([]byte, error) {
	text, ok := strings.CutPrefix(digest, sha256Prefix)
	raw, err := hex.DecodeString(text)
	if !ok || err != nil || len(raw) != 32 || strings.ToLower(text) != text {
		return nil, fmt.Errorf("%q is not a digest of the form sha256:<hex>", digest)
	}
	return raw, nil
}
