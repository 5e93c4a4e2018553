package cosign

import (
	"encoding/json"
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// envelopeType is the type of the layers behind the tag sha256-<hex>.att.
const envelopeType = "application/vnd.dsse.envelope.v1+json"

// verifyEnvelope makes a bundle of an attestation of the older format, and
// verifies it as one.
func (c *check) verifyEnvelope(data []byte, annotations map[string]string) (*Verified, error) {
	envelope, err := readEnvelope(data)
	if err != nil {
		return nil, err
	}
	material, err := c.materialOf(annotations)
	if err != nil {
		return nil, err
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: olderBundle, VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: envelope},
	})
	if err != nil {
		return nil, err
	}
	return c.believe(b, verify.WithArtifactDigest("sha256", c.raw), c.states)
}

func readEnvelope(data []byte) (*protodsse.Envelope, error) {
	var e struct {
		PayloadType string `json:"payloadType"`
		Payload     []byte `json:"payload"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   []byte `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("the envelope: %w", err)
	}
	if len(e.Signatures) != 1 {
		return nil, errors.New("the envelope must have one signature")
	}
	return &protodsse.Envelope{
		Payload: e.Payload, PayloadType: e.PayloadType,
		Signatures: []*protodsse.Signature{{Sig: e.Signatures[0].Sig, Keyid: e.Signatures[0].KeyID}},
	}, nil
}
