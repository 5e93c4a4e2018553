package cosign

import (
	"context"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

const (
	// bundleType is the artifact type of manifests that hold a bundle, and the
	// media type of the bundle.
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// signPredicate is what a bundle states that is a signature of an artifact,
	// and not a statement about it.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// bundles looks at what refers to the digest.
func (c *check) bundles(ctx context.Context) (*Verified, error) {
	referrers, err := c.repository.Referrers(ctx, c.digest, bundleType)
	if err != nil {
		return nil, err
	}
	var unread []error
	for i, referrer := range referrers {
		if i == maxSignatures {
			c.refuse("bundles", fmt.Errorf("only the first %d of %d were looked at", maxSignatures, len(referrers)))
			break
		}
		data, err := c.bundle(ctx, referrer)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		if data == nil {
			continue
		}
		verified, err := guarded(func() (*Verified, error) { return c.verifyBundle(data) })
		if err == nil {
			return verified, nil
		}
		c.refuse("bundle "+referrer, err)
	}
	return nil, errors.Join(unread...)
}

// bundle reads the bundle of a manifest, nil if it holds something else.
func (c *check) bundle(ctx context.Context, reference string) ([]byte, error) {
	m, err := c.manifest(ctx, reference)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		if l.MediaType == bundleType {
			return c.repository.Blob(ctx, l.Digest)
		}
	}
	return nil, nil
}

func (c *check) verifyBundle(data []byte) (*Verified, error) {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	artifact := verify.WithArtifactDigest("sha256", c.raw)
	if c.policy.trusted != nil {
		verifier, err := c.policy.certified()
		if err != nil {
			return nil, err
		}
		result, err := verifier.Verify(b, verify.NewPolicy(artifact, c.policy.identities...))
		if err == nil {
			err = isSignature(result)
		}
		if err != nil {
			return nil, err
		}
		return &Verified{Signer: signer(result), Bundle: true}, nil
	}
	var problems []error
	for _, k := range c.policy.keys {
		verifier, err := k.keyed()
		if err != nil {
			return nil, err
		}
		result, err := verifier.Verify(b, verify.NewPolicy(artifact, verify.WithKey()))
		if err == nil {
			err = isSignature(result)
		}
		if err == nil {
			return &Verified{Signer: k.name, Bundle: true}, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", k.name, err))
	}
	return nil, errors.Join(problems...)
}

// isSignature tells a signature from an attestation: who states what is in an
// artifact does not say that it is to be run.
func isSignature(result *verify.VerificationResult) error {
	if result.Statement != nil && result.Statement.GetPredicateType() != signPredicate {
		return fmt.Errorf("it states %q, which is not that the artifact is signed", result.Statement.GetPredicateType())
	}
	return nil
}
