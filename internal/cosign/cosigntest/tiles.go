package cosigntest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/bothy-os/bothy/internal/signers/x509test"
)

// Tiles is a Sigstore whose log is of the second version (Rekor v2): its entries
// have no time of their own, which a time-stamp service states instead.
type Tiles struct {
	*Sigstore
	stamps *x509test.Witness
}

// NewTiles makes one with keys of its own.
func NewTiles(t testing.TB) Tiles {
	t.Helper()
	return Tiles{Sigstore: NewSigstore(t), stamps: x509test.NewWitness(t)}
}

// TrustedRoot is trusted_root.json of this Sigstore.
func (s Tiles) TrustedRoot(t testing.TB) []byte {
	t.Helper()
	plain, err := root.NewTrustedRootFromJSON(s.Sigstore.TrustedRoot(t, false))
	must(t, err)
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, plain.FulcioCertificateAuthorities(), nil, s.stamps.TrustedStamps(), plain.RekorLogs())
	must(t, err)
	text, err := trusted.MarshalJSON()
	must(t, err)
	return text
}

// BundleOf is a bundle by subject with a statement; without a stamp nobody says
// when it was made.
func (s Tiles) BundleOf(t testing.TB, subject, issuer string, statement []byte, stamped bool) []byte {
	t.Helper()
	certificate, key := s.issue(t, subject, issuer)
	signed := authenticated(statement)
	sig := key.sign(t, signed)
	b64 := base64.StdEncoding.EncodeToString
	digest := sha256.Sum256(signed)
	body := fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":%q},"signature":{"content":%q,"verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":%q}}}}}}`,
		b64(digest[:]), b64(sig), b64(certificate.Raw))
	material := &protobundle.VerificationMaterial{
		Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate.Raw}},
		TlogEntries: []*protorekor.TransparencyLogEntry{s.tile(t, body)},
	}
	if stamped {
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: s.stamps.Response(t, sig, time.Now())}},
		}
	}
	return encode(t, &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", VerificationMaterial: material, Content: envelope(statement, sig),
	})
}

// tile logs a body, as the only one of its tree.
func (s Tiles) tile(t testing.TB, body []byte) *protorekor.TransparencyLogEntry {
	t.Helper()
	id := s.logID(t)
	top := sha256.Sum256(append([]byte{0}, body...))
	checkpoint := fmt.Sprintf("%s\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(top[:]))
	line := base64.StdEncoding.EncodeToString(append(id[:4:4], (&Key{s.log}).sign(t, []byte(checkpoint))...))
	return &protorekor.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: id}, CanonicalizedBody: body,
		KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: top[:],
			Checkpoint: &protorekor.Checkpoint{Envelope: fmt.Sprintf("%s\n\u2014 %s %s\n", checkpoint, origin, line)},
		},
	}
}
