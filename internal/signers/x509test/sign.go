package x509test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

// Proof says what to attach to a signature.
type Proof struct {
	// Log attaches an entry of its log, Stamp a time stamp of its service, both
	// of the time At.
	Log, Stamp *Witness
	At         time.Time
	// Claimed is the time that the signer claims; At if zero, and now if that is
	// zero too.
	Claimed time.Time
}

// Sign signs a payload and returns the armor that git keeps. It is the form of
// gitsign with a log entry, and of smimesign without.
func (i *Identity) Sign(t testing.TB, payload []byte, proof Proof) string {
	t.Helper()
	sd, err := pkcs7.NewSignedData(payload)
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSignerChain(i.Cert, i.Key, []*x509.Certificate{i.Authority.Intermediate}, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	sd.Detach()
	signer := &sd.GetSignedData().SignerInfos[0]
	if proof.Claimed.IsZero() {
		proof.Claimed = proof.At
	}
	if !proof.Claimed.IsZero() {
		signingTime(t, signer.AuthenticatedAttributes, proof.Claimed)
		digest := sha256.Sum256(signed(t, signer.AuthenticatedAttributes))
		if signer.EncryptedDigest, err = i.Key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	extend(t, &signer.UnauthenticatedAttributes, i.unsigned(t, signed(t, signer.AuthenticatedAttributes), signer.EncryptedDigest, proof))
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return encode("SIGNED MESSAGE", der)
}

// signingTime replaces the time that the signer claims.
func signingTime[A ~struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}](t testing.TB, attrs []A, at time.Time) {
	t.Helper()
	for i := range attrs {
		a := attribute(attrs[i])
		if a.Type.Equal(pkcs7.OIDAttributeSigningTime) {
			der, err := asn1.Marshal(at.UTC())
			if err != nil {
				t.Fatal(err)
			}
			attrs[i] = A(attribute{Type: a.Type, Value: asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: der}})
		}
	}
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}

// extend adds to the library's attributes, whose type has no name outside.
func extend[A ~struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}](_ testing.TB, to *[]A, more []attribute) {
	for _, a := range more {
		*to = append(*to, A(a))
	}
}

func (i *Identity) unsigned(t testing.TB, signed, signature []byte, proof Proof) []attribute {
	t.Helper()
	var out []attribute
	add := func(oid asn1.ObjectIdentifier, der []byte) {
		out = append(out, attribute{Type: oid, Value: asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: der}})
	}
	if proof.Log != nil {
		der, err := asn1.Marshal(proof.Log.entry(t, i.Cert, signed, signature, proof.At))
		if err != nil {
			t.Fatal(err)
		}
		add(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 3, 1}, der)
	}
	if proof.Stamp != nil {
		add(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}, proof.Stamp.stamp(t, signature, proof.At))
	}
	return out
}

// signed is what the signature covers: the attributes as a SET OF in DER.
func signed[A any](t testing.TB, attrs []A) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		A []A `asn1:"set"`
	}{attrs})
	if err != nil {
		t.Fatal(err)
	}
	var sequence asn1.RawValue
	if _, err := asn1.Unmarshal(der, &sequence); err != nil {
		t.Fatal(err)
	}
	return sequence.Bytes
}
