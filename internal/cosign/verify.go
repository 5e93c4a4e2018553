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

// maxSignatures bounds how many signatures of a digest are looked at.
const maxSignatures = 50

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
	// Reasons are of the signatures that were found, one each.
	Reasons []error
}

func (u *Unsigned) Error() string {
	if len(u.Reasons) == 0 {
		return fmt.Sprintf("%s has no signature; sign it with: cosign sign", u.Digest)
	}
	reasons := make([]string, 0, len(u.Reasons))
	for _, r := range u.Reasons {
		reasons = append(reasons, r.Error())
	}
	return fmt.Sprintf("%s has no trusted signature: %s", u.Digest, strings.Join(reasons, "; "))
}

// Verify looks for a signature of digest ("sha256:<hex>") that the policy
// believes. The error is an [*Unsigned] if there is none; any other says that it
// is not known, because something could not be read.
func Verify(ctx context.Context, r Repository, digest string, p *Policy) (*Verified, error) {
	raw, err := digestBytes(digest)
	if err != nil {
		return nil, err
	}
	c := &check{repository: r, digest: digest, raw: raw, policy: p}
	var unread []error
	for _, look := range []func(context.Context) (*Verified, error){c.bundles, c.legacy} {
		verified, err := look(ctx)
		if verified != nil {
			return verified, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			unread = append(unread, err)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(unread) > 0 {
		return nil, fmt.Errorf("read signatures of %s: %w", digest, errors.Join(unread...))
	}
	return nil, &Unsigned{Digest: digest, Reasons: c.reasons}
}

// check is the search for a signature of one digest.
type check struct {
	repository Repository
	digest     string
	raw        []byte
	policy     *Policy
	reasons    []error
}

// refuse notes why a signature was not believed.
func (c *check) refuse(what string, err error) {
	c.reasons = append(c.reasons, fmt.Errorf("%s: %w", what, err))
}

// manifest reads a manifest of signatures.
func (c *check) manifest(ctx context.Context, reference string) (*manifest, error) {
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
