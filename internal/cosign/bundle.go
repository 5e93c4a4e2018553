package cosign

import (
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	// bundleType is the artifact type of manifests that hold a bundle, and the
	// media type of the bundle.
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// signPredicate is what a bundle states that is a signature of an artifact,
	// and not a statement about it.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

func (c *check) verifyBundle(data []byte) (*Verified, error) {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	v, err := c.believe(b, verify.WithArtifactDigest("sha256", c.raw), c.states)
	if err != nil {
		return nil, err
	}
	v.Bundle = true
	return v, nil
}

// believe verifies a bundle by the identities, or each of the keys, of the
// policy. What is verified then has to satisfy judge.
func (c *check) believe(b *bundle.Bundle, artifact verify.ArtifactPolicyOption, judge func(*verify.VerificationResult) error) (*Verified, error) {
	if c.policy.byIdentity() {
		verifier, err := c.policy.certified()
		if err != nil {
			return nil, err
		}
		result, err := verifier.Verify(b, verify.NewPolicy(artifact, c.policy.identities...))
		if err == nil {
			err = judge(result)
		}
		if err != nil {
			return nil, err
		}
		return &Verified{Signer: signer(result)}, nil
	}
	var problems []error
	for _, k := range c.policy.keys {
		verifier, err := c.policy.keyed(k)
		if err != nil {
			return nil, err
		}
		result, err := verifier.Verify(b, verify.NewPolicy(artifact, verify.WithKey()))
		if err == nil {
			err = judge(result)
		}
		if err == nil {
			return &Verified{Signer: k.name}, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", k.name, err))
	}
	return nil, errors.Join(problems...)
}

// states tells a signature from an attestation, and one attestation from
// another: who states what is in an artifact does not say that it is to be run.
func (c *check) states(result *verify.VerificationResult) error {
	if c.predicateType == signPredicate {
		if result.Statement != nil && result.Statement.GetPredicateType() != signPredicate {
			return fmt.Errorf("it states %q, which is not that the artifact is signed", result.Statement.GetPredicateType())
		}
		return nil
	}
	if result.Statement == nil {
		return errors.New("it is a signature and states nothing")
	}
	if got := result.Statement.GetPredicateType(); got != c.predicateType {
		return fmt.Errorf("it states %q, wanted is %q", got, c.predicateType)
	}
	text, err := protojson.Marshal(result.Statement)
	if err != nil {
		return fmt.Errorf("its statement: %w", err)
	}
	return c.accept(text)
}
