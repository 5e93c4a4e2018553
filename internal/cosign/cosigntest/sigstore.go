package cosigntest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bothy-os/bothy/internal/signers/x509test"
)

// SignPredicate is what a bundle states that is a signature.
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

// Key is a key pair.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey makes a key pair.
func NewKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return &Key{private}
}

// PEM is the public key.
func (k *Key) PEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (k *Key) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	must(t, err)
	return sig
}

// Payload is what cosign signs for a digest.
func Payload(digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"localhost/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

// Annotations are those of a layer with the payload.
func (k *Key) Annotations(t testing.TB, payload []byte) map[string]string {
	t.Helper()
	return map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(k.sign(t, payload))}
}

// Bundle is a bundle that states the predicate of a digest.
func (k *Key) Bundle(t testing.TB, digest, predicate string) []byte {
	t.Helper()
	return k.BundleOf(t, Statement(digest, predicate))
}

// BundleOf is a bundle with a statement.
func (k *Key) BundleOf(t testing.TB, statement []byte) []byte {
	t.Helper()
	return encode(t, &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "test"}},
		},
		Content: envelope(statement, k.sign(t, authenticated(statement))),
	})
}

// EnvelopeOf is an attestation of the older format with a statement.
func (k *Key) EnvelopeOf(t testing.TB, statement []byte) []byte {
	t.Helper()
	return enclose(t, statement, k.sign(t, authenticated(statement)))
}

// Statement is an in-toto statement of a digest.
func Statement(digest, predicateType string) []byte {
	return StatementThat(digest, predicateType, "{}")
}

// StatementThat is one with a predicate, which is JSON.
func StatementThat(digest, predicateType, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`, digest[len("sha256:"):], predicateType, predicate)
}

const statementType = "application/vnd.in-toto+json"

// authenticated is what the signature of an envelope is over (DSSE's PAE).
func authenticated(statement []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(statement), statement)
}

func envelope(statement, sig []byte) *protobundle.Bundle_DsseEnvelope {
	return &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: statement, PayloadType: statementType, Signatures: []*protodsse.Signature{{Sig: sig}},
	}}
}

// Sigstore issues certificates and logs what is signed with them.
type Sigstore struct {
	authority *x509test.Authority
	log       *ecdsa.PrivateKey
	// late is how long after it was signed a thing is logged.
	late time.Duration
}

// NewSigstore makes a Sigstore with keys of its own.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	return &Sigstore{authority: x509test.NewAuthority(t, "sigstore"), log: NewKey(t).private}
}

// Late is the same Sigstore, whose log notes things an hour after they were signed, when their
// certificates have expired.
func (s *Sigstore) Late() *Sigstore {
	late := *s
	late.late = time.Hour
	return &late
}

// TrustedRoot is trusted_root.json of this Sigstore; transparent asks for
// certificates that are in a log of certificates, which those of this Sigstore
// are not.
func (s *Sigstore) TrustedRoot(t testing.TB, transparent bool) []byte {
	t.Helper()
	logs := map[string]*root.TransparencyLog{hex.EncodeToString(s.logID(t)): {
		BaseURL: "https://" + origin, ID: s.logID(t), PublicKey: &s.log.PublicKey,
		HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256, ValidityPeriodStart: time.Unix(1, 0),
	}}
	var certificates map[string]*root.TransparencyLog
	if transparent {
		certificates = logs
	}
	fulcio := &root.FulcioCertificateAuthority{
		Root: s.authority.Root, Intermediates: []*x509.Certificate{s.authority.Intermediate},
		ValidityPeriodStart: s.authority.Root.NotBefore, URI: "https://fulcio.localhost",
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{fulcio}, certificates, nil, logs)
	must(t, err)
	text, err := trusted.MarshalJSON()
	must(t, err)
	return text
}

// issue makes a certificate of ten minutes.
func (s *Sigstore) issue(t testing.TB, subject, issuer string) (*x509.Certificate, *Key) {
	t.Helper()
	i := s.authority.Issue(t, x509test.Leaf{
		Email: subject, Issuer: issuer, Usage: x509.ExtKeyUsageCodeSigning,
		NotBefore: time.Now().Add(-5 * time.Minute), NotAfter: time.Now().Add(5 * time.Minute),
	})
	return i.Cert, &Key{i.Key.(*ecdsa.PrivateKey)}
}

// Annotations are those of a layer with the payload, signed by subject. Without
// logged the transparency log entry is missing.
func (s *Sigstore) Annotations(t testing.TB, subject, issuer string, payload []byte, logged bool) map[string]string {
	t.Helper()
	certificate, key := s.issue(t, subject, issuer)
	sig := key.sign(t, payload)
	out := map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig),
		"dev.sigstore.cosign/certificate":    string(certificatePEM(certificate)),
	}
	if logged {
		body := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
			sha256.Sum256(payload), base64.StdEncoding.EncodeToString(sig), base64.StdEncoding.EncodeToString(certificatePEM(certificate)))
		out["dev.sigstore.cosign/bundle"] = attached(t, s.entry(t, "hashedrekord", body))
	}
	return out
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// attached is a log entry as cosign attaches it.
func attached(t testing.TB, entry *protorekor.TransparencyLogEntry) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": entry.InclusionPromise.SignedEntryTimestamp,
		"Payload": map[string]any{
			"body": entry.CanonicalizedBody, "integratedTime": entry.IntegratedTime,
			"logIndex": entry.LogIndex, "logID": hex.EncodeToString(entry.LogId.KeyId),
		},
	})
	must(t, err)
	return string(text)
}

// Bundle is a bundle by subject that states the predicate of a digest.
func (s *Sigstore) Bundle(t testing.TB, subject, issuer, digest, predicate string) []byte {
	t.Helper()
	return s.BundleOf(t, subject, issuer, Statement(digest, predicate))
}

// BundleOf is a bundle by subject with a statement.
func (s *Sigstore) BundleOf(t testing.TB, subject, issuer string, statement []byte) []byte {
	t.Helper()
	certificate, key := s.issue(t, subject, issuer)
	sig := key.sign(t, authenticated(statement))
	content := base64.StdEncoding.EncodeToString(sig)
	enclosed := enclose(t, statement, sig)
	body := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"%x"},"payloadHash":{"algorithm":"sha256","value":"%x"},"signatures":[{"signature":%q,"verifier":%q}]}}`,
		sha256.Sum256(enclosed), sha256.Sum256(statement), content, base64.StdEncoding.EncodeToString(certificatePEM(certificate)))
	return encode(t, &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate.Raw}},
			TlogEntries: []*protorekor.TransparencyLogEntry{s.entry(t, "dsse", body)},
		},
		Content: envelope(statement, sig),
	})
}

// enclose is the envelope as JSON.
func enclose(t testing.TB, statement, sig []byte) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"payload": statement, "payloadType": statementType,
		"signatures": []map[string]string{{"sig": base64.StdEncoding.EncodeToString(sig)}},
	})
	must(t, err)
	return text
}

const origin = "rekor.localhost"

func (s *Sigstore) logID(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.log.PublicKey)
	must(t, err)
	id := sha256.Sum256(der)
	return id[:]
}

// entry logs a body, as the only one of its tree.
func (s *Sigstore) entry(t testing.TB, kind string, body []byte) *protorekor.TransparencyLogEntry {
	t.Helper()
	log, id, at := &Key{s.log}, s.logID(t), time.Now().Add(s.late).Unix()
	promise := log.sign(t, fmt.Appendf(nil, `{"body":%q,"integratedTime":%d,"logID":"%x","logIndex":0}`, base64.StdEncoding.EncodeToString(body), at, id))
	top := sha256.Sum256(append([]byte{0}, body...))
	checkpoint := fmt.Sprintf("%s - 42\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(top[:]))
	line := base64.StdEncoding.EncodeToString(append(id[:4:4], log.sign(t, []byte(checkpoint))...))
	return &protorekor.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: at, CanonicalizedBody: body,
		KindVersion:      &protorekor.KindVersion{Kind: kind, Version: "0.0.1"},
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: promise},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: top[:],
			Checkpoint: &protorekor.Checkpoint{Envelope: fmt.Sprintf("%s\n\u2014 %s %s\n", checkpoint, origin, line)},
		},
	}
}

func encode(t testing.TB, b *protobundle.Bundle) []byte {
	t.Helper()
	text, err := protojson.Marshal(b)
	must(t, err)
	return bytes.TrimSpace(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
