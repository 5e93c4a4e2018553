package x509test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/proto"
)

// Witness is a transparency log of one entry at a time, and a time-stamp
// service.
type Witness struct {
	log         *ecdsa.PrivateKey
	stampRoot   *x509.Certificate
	stampCert   *x509.Certificate
	stampKey    *ecdsa.PrivateKey
	logKey      []byte // DER
	origin      string
	stampPolicy asn1.ObjectIdentifier
}

// NewWitness makes a log and a service with keys of their own.
func NewWitness(t testing.TB) *Witness {
	t.Helper()
	w := &Witness{log: newKey(t), stampKey: newKey(t), origin: "rekor.localhost", stampPolicy: asn1.ObjectIdentifier{1, 2, 3}}
	var err error
	if w.logKey, err = x509.MarshalPKIXPublicKey(&w.log.PublicKey); err != nil {
		t.Fatal(err)
	}
	rootKey := newKey(t)
	w.stampRoot = issue(t, authority("time root"), nil, &rootKey.PublicKey, rootKey)
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	w.stampCert = issue(t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "time service"},
		NotBefore: w.stampRoot.NotBefore, NotAfter: w.stampRoot.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, w.stampRoot, &w.stampKey.PublicKey, rootKey)
	return w
}

// LogKeys is what transparencyLogKeys of a signer lists.
func (w *Witness) LogKeys() string { return encode("PUBLIC KEY", w.logKey) }

// TimestampPEM is what timestampAuthorities of a signer lists.
func (w *Witness) TimestampPEM() string { return encode("CERTIFICATE", w.stampRoot.Raw) }

func (w *Witness) logID() []byte {
	id := sha256.Sum256(w.logKey)
	return id[:]
}

func (w *Witness) trustedLogs() map[string]*root.TransparencyLog {
	return map[string]*root.TransparencyLog{hex.EncodeToString(w.logID()): {
		BaseURL: "https://" + w.origin, ID: w.logID(), PublicKey: &w.log.PublicKey,
		HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256, ValidityPeriodStart: time.Unix(1, 0),
	}}
}

// TrustedStamps are the service as a trusted root lists it.
func (w *Witness) TrustedStamps() []root.TimestampingAuthority {
	return []root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
		Root: w.stampRoot, Leaf: w.stampCert, ValidityPeriodStart: w.stampRoot.NotBefore, URI: "https://time.localhost",
	}}
}

// entry is the log's entry of a signature, without the body, as gitsign keeps
// it in the signature.
func (w *Witness) entry(t testing.TB, cert *x509.Certificate, signed, signature []byte, at time.Time) []byte {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":"%s","publicKey":{"content":"%s"}}}}`,
		sha256.Sum256(signed), base64.StdEncoding.EncodeToString(signature), base64.StdEncoding.EncodeToString([]byte(encode("CERTIFICATE", cert.Raw))))
	const index = 0
	promise := w.sign(t, fmt.Appendf(nil, `{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`,
		base64.StdEncoding.EncodeToString([]byte(body)), at.Unix(), w.logID(), index))

	// A tree of one leaf.
	top := sha256.Sum256(append([]byte{0}, body...))
	checkpoint := fmt.Sprintf("%s - 42\n1\n%s\n", w.origin, base64.StdEncoding.EncodeToString(top[:]))
	line := base64.StdEncoding.EncodeToString(append(w.logID()[:4:4], w.sign(t, []byte(checkpoint))...))
	out, err := proto.Marshal(&protorekor.TransparencyLogEntry{
		LogIndex: index, LogId: &protocommon.LogId{KeyId: w.logID()}, IntegratedTime: at.Unix(),
		KindVersion:      &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.1"},
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: promise},
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: index, TreeSize: 1, RootHash: top[:],
			Checkpoint: &protorekor.Checkpoint{Envelope: fmt.Sprintf("%s\n— %s %s\n", checkpoint, w.origin, line)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *Witness) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, w.log, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// stamp is a time-stamp token over a signature.
func (w *Witness) stamp(t testing.TB, signature []byte, at time.Time) []byte {
	t.Helper()
	var parts struct{ Status, Token asn1.RawValue }
	if _, err := asn1.Unmarshal(w.Response(t, signature, at), &parts); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(parts.Token.FullBytes)
}

// Response is what a time-stamp service answers about a signature: a status and
// the token.
func (w *Witness) Response(t testing.TB, signature []byte, at time.Time) []byte {
	t.Helper()
	digest := sha256.Sum256(signature)
	response, err := (&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: digest[:], Time: at, Policy: w.stampPolicy, AddTSACertificate: true,
	}).CreateResponseWithOpts(w.stampCert, w.stampKey, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return response
}
