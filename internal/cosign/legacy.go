package cosign

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Of the manifest with the tag sha256-<hex>.sig: each layer is a signed payload,
// and its annotations are the signature with what proves it.
const (
	payloadType           = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"

	payloadKind = "cosign container image signature"
)

// payload is what is signed.
type payload struct {
	Critical struct {
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// verifyPayload verifies the signature of a payload, and that the payload is
// about the digest.
func (c *check) verifyPayload(signed []byte, annotations map[string]string) (*Verified, error) {
	sig, err := base64.StdEncoding.DecodeString(annotations[signatureAnnotation])
	if err != nil || len(sig) == 0 {
		return nil, errors.New("the layer has no signature")
	}
	verified, err := c.verifyOver(signed, sig, annotations)
	if err != nil {
		return nil, err
	}
	var p payload
	if err := json.Unmarshal(signed, &p); err != nil {
		return nil, fmt.Errorf("what is signed cannot be read: %w", err)
	}
	switch {
	case p.Critical.Type != payloadKind:
		return nil, fmt.Errorf("what is signed is %q and not an artifact", p.Critical.Type)
	case p.Critical.Image.Digest != c.digest:
		return nil, fmt.Errorf("it is a signature of %s", p.Critical.Image.Digest)
	}
	return verified, nil
}

func (c *check) verifyOver(signed, sig []byte, annotations map[string]string) (*Verified, error) {
	if c.policy.trusted != nil {
		return c.verifyProven(signed, sig, annotations)
	}
	var names []string
	for _, k := range c.policy.keys {
		if err := k.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(signed)); err == nil {
			return &Verified{Signer: k.name}, nil
		}
		names = append(names, k.name)
	}
	return nil, fmt.Errorf("it is not by any of the keys %s", strings.Join(names, ", "))
}

// olderBundle is the version that is content with a log's promise of inclusion.
const olderBundle = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// verifyProven makes a bundle of what the annotations hold, and verifies it as
// one.
func (c *check) verifyProven(signed, sig []byte, annotations map[string]string) (*Verified, error) {
	material, err := c.materialOf(annotations)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(signed)
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: olderBundle, VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     sig,
		}},
	})
	if err != nil {
		return nil, err
	}
	return c.believe(b, verify.WithArtifact(bytes.NewReader(signed)), func(*verify.VerificationResult) error { return nil })
}

// materialOf is what proves a signature: certificate, log entry, time stamp.
func (c *check) materialOf(annotations map[string]string) (*protobundle.VerificationMaterial, error) {
	material := &protobundle.VerificationMaterial{}
	if c.policy.byIdentity() {
		block, _ := pem.Decode([]byte(annotations[certificateAnnotation]))
		if block == nil {
			return nil, errors.New("it has no certificate: it was made with a key, and the policy names identities")
		}
		material.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}},
		}}
	} else {
		material.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "key"}}
	}
	if text := annotations[logAnnotation]; text != "" {
		entry, err := logEntry([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("its transparency log entry: %w", err)
		}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text := annotations[timestampAnnotation]; text != "" {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return nil, fmt.Errorf("its time stamp: %w", err)
		}
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.SignedRFC3161Timestamp}},
		}
	}
	return material, nil
}

// logEntry reads the transparency log entry as cosign attaches it.
func logEntry(text []byte) (*protorekor.TransparencyLogEntry, error) {
	var attached struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(text, &attached); err != nil {
		return nil, err
	}
	log, err := hex.DecodeString(attached.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("logID: %w", err)
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(attached.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex:          attached.Payload.LogIndex,
		LogId:             &protocommon.LogId{KeyId: log},
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.Version},
		IntegratedTime:    attached.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: attached.SignedEntryTimestamp},
		CanonicalizedBody: attached.Payload.Body,
	}, nil
}
