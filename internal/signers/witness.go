package signers

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/proto"
)

// parseLogs reads PEM public keys of transparency logs. A log is named by the
// hash of its key.
func parseLogs(text string) (map[string]*root.TransparencyLog, error) {
	logs := map[string]*root.TransparencyLog{}
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "PUBLIC KEY" {
			return nil, errors.New("transparencyLogKeys holds something that is not a PEM public key")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("transparencyLogKeys: %w", err)
		}
		id := sha256.Sum256(block.Bytes)
		logs[hex.EncodeToString(id[:])] = &root.TransparencyLog{
			ID: id[:], PublicKey: key, HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
			// A pinned key counts for entries of any time.
			ValidityPeriodStart: time.Unix(0, 0),
		}
	}
	return logs, nil
}

// parseTimestampAuthorities reads PEM certificates of time-stamp services: each
// self-signed one is an authority, the others complete chains to it.
func parseTimestampAuthorities(text string) ([]root.TimestampingAuthority, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	certs, err := parseCertificates("timestampAuthorities", text)
	if err != nil {
		return nil, err
	}
	var anchors, others []*x509.Certificate
	for _, cert := range certs {
		if selfSigned(cert) {
			anchors = append(anchors, cert)
		} else if cert.IsCA {
			others = append(others, cert)
		}
	}
	if len(anchors) == 0 {
		return nil, errors.New("timestampAuthorities holds no self-signed certificate for a chain to end at")
	}
	var out []root.TimestampingAuthority
	for _, anchor := range anchors {
		out = append(out, &root.SigstoreTimestampingAuthority{Root: anchor, Intermediates: others})
	}
	return out, nil
}

// attestedTimes returns when the signature existed, by those whom the trust
// root lists: a transparency log whose entry is in the signature, or a
// time-stamp service. The error says why nobody does.
func (c *certified) attestedTimes(sig *cms) ([]moment, error) {
	var out []moment
	var problems []error
	for _, token := range sig.timestamps {
		at, err := c.stamped(sig, token)
		if err != nil {
			problems = append(problems, fmt.Errorf("time stamp: %w", err))
			continue
		}
		out = append(out, moment{at, "at the time of its time stamp"})
	}
	if sig.logEntry != nil {
		at, err := c.logged(sig)
		if err != nil {
			problems = append(problems, fmt.Errorf("transparency log entry: %w", err))
		} else {
			out = append(out, moment{at, "at the time of its transparency log entry"})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(problems) == 0:
		return nil, errors.New("the signature has neither a transparency log entry nor a time stamp")
	}
	return nil, errors.Join(problems...)
}

// timestampResponse is an RFC 3161 TimeStampResp that was granted.
type timestampResponse struct {
	Status struct{ Status int }
	Token  asn1.RawValue
}

// stamped verifies a time-stamp token over the signature.
func (c *certified) stamped(sig *cms, token []byte) (at time.Time, err error) {
	defer confine(&err)
	authorities := c.witnesses.TimestampingAuthorities()
	if len(authorities) == 0 {
		return time.Time{}, errors.New("the trust root lists no time-stamp authority")
	}
	response, err := asn1.Marshal(timestampResponse{Token: asn1.RawValue{FullBytes: token}})
	if err != nil {
		return time.Time{}, err
	}
	for _, authority := range authorities {
		var got *root.Timestamp
		if got, err = authority.Verify(response, sig.signature); err == nil {
			return got.Time, nil
		}
	}
	return time.Time{}, err
}

// logged verifies the transparency log entry that gitsign attaches. It lacks
// the body, which follows from certificate, signature and what was signed.
func (c *certified) logged(sig *cms) (at time.Time, err error) {
	defer confine(&err)
	entry := &protorekor.TransparencyLogEntry{}
	if err := proto.Unmarshal(sig.logEntry, entry); err != nil {
		return time.Time{}, err
	}
	digest := sha256.Sum256(sig.signed)
	if entry.CanonicalizedBody, err = logBody(sig, digest[:]); err != nil {
		return time.Time{}, err
	}
	entity, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     sig.signature,
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: sig.leaf.Raw}},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
		},
	})
	if err != nil {
		return time.Time{}, err
	}
	times, err := verify.VerifyTlogEntry(entity, c.witnesses, 1, true)
	switch {
	case err != nil:
		return time.Time{}, err
	case len(times) == 0:
		return time.Time{}, errors.New("it does not promise a time")
	}
	return times[0].Time, nil
}

// logBody is the canonical JSON of the log's entry (Rekor's hashedrekord
// 0.0.1): keys in order, no spaces.
func logBody(sig *cms, digest []byte) ([]byte, error) {
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sig.leaf.Raw})
	type object = map[string]any // encoded with its keys in order
	return json.Marshal(object{
		"apiVersion": "0.0.1",
		"kind":       "hashedrekord",
		"spec": object{
			"data": object{"hash": object{"algorithm": "sha256", "value": hex.EncodeToString(digest)}},
			"signature": object{
				"content":   base64.StdEncoding.EncodeToString(sig.signature),
				"publicKey": object{"content": base64.StdEncoding.EncodeToString(certificate)},
			},
		},
	})
}

// confine turns a panic of a library that reads what strangers wrote into an
// error.
func confine(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("cannot be read: %v", p)
	}
}
