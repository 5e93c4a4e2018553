package cosign_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/internal/cosign"
)

func recorded(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRecorded verifies what the public-good Sigstore, and another, issued and logged, with the roots of that time and
// nothing else. Each has twins in which one thing differs, which are refused.
func TestRecorded(t *testing.T) {
	const (
		attestedDigest = "sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4"
		signedDigest   = "sha256:bc103b4a84971ef6459b294a2b98568a2bfb72cded09d4acd1e16366a401f95b"
		attestation    = "https://cosign.sigstore.dev/attestation/v1"
	)
	attested, signed := recorded(t, "public-good/oci-attestation.sigstore.json"), recorded(t, "scaffolding/othername.sigstore.json")
	publicGood, scaffolding := recorded(t, "public-good/trusted_root.json"), recorded(t, "scaffolding/trusted_root.json")
	cody := cosign.Identity{ExactIssuer: "https://github.com/login/oauth", ExactSubject: "cody@soyland.com"}
	foo := cosign.Identity{ExactIssuer: "http://oidc.local:8080", ExactSubject: "foo!oidc.local"}
	believe := func(root []byte, id cosign.Identity) *cosign.Policy {
		t.Helper()
		p, err := cosign.ByIdentities(root, id)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// with changes a field of a bundle by its path.
	with := func(bundle []byte, change func(string) string, path ...any) []byte {
		t.Helper()
		var all any
		if err := json.Unmarshal(bundle, &all); err != nil {
			t.Fatal(err)
		}
		at := all
		for i, p := range path {
			last := i == len(path)-1
			switch p := p.(type) {
			case string:
				m := at.(map[string]any)
				if last {
					m[p] = change(m[p].(string))
				}
				at = m[p]
			case int:
				at = at.([]any)[p]
			}
		}
		out, err := json.Marshal(all)
		if err != nil || bytes.Equal(out, bundle) {
			t.Fatal("nothing was changed", err)
		}
		return out
	}
	flip := func(text string) string {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		return base64.StdEncoding.EncodeToString(data)
	}
	entry := []any{"verificationMaterial", "tlogEntries", 0}
	at := func(path ...any) []any { return append(append([]any{}, entry...), path...) }
	for what, c := range map[string]struct {
		bundle []byte
		digest string
		policy *cosign.Policy
		// predicate is "" for a signature.
		predicate string
		refuse    string
	}{
		"public good, attestation":    {attested, attestedDigest, believe(publicGood, cody), attestation, ""},
		"another digest":              {attested, signedDigest, believe(publicGood, cody), attestation, "does not match"},
		"another predicate":           {attested, attestedDigest, believe(publicGood, cody), "https://slsa.dev/provenance/v1", "wanted is"},
		"an attestation for a signed": {attested, attestedDigest, believe(publicGood, cody), "", "which is not that the artifact is signed"},
		"another identity":            {attested, attestedDigest, believe(publicGood, cosign.Identity{ExactIssuer: cody.ExactIssuer, ExactSubject: "mallory@soyland.com"}), attestation, "no matching CertificateIdentity"},
		"another issuer":              {attested, attestedDigest, believe(publicGood, cosign.Identity{ExactIssuer: "https://accounts.google.com", ExactSubject: cody.ExactSubject}), attestation, "no matching CertificateIdentity"},
		"another Sigstore":            {attested, attestedDigest, believe(scaffolding, cody), attestation, "has no trusted"},
		"another statement":           {with(attested, flip, "dsseEnvelope", "payload"), attestedDigest, believe(publicGood, cody), attestation, "has no trusted"},
		"another signature":           {with(attested, flip, "dsseEnvelope", "signatures", 0, "sig"), attestedDigest, believe(publicGood, cody), attestation, "has no trusted"},
		"another log entry":           {with(attested, flip, at("canonicalizedBody")...), attestedDigest, believe(publicGood, cody), attestation, "has no trusted"},
		"a broken proof of inclusion": {with(attested, flip, at("inclusionProof", "rootHash")...), attestedDigest, believe(publicGood, cody), attestation, "has no trusted"},
		"another promise of the log":  {with(attested, flip, at("inclusionPromise", "signedEntryTimestamp")...), attestedDigest, believe(publicGood, cody), attestation, "has no trusted"},
		"logged at another time": {
			with(attested, func(string) string { return "1740780291" }, at("integratedTime")...), attestedDigest, believe(publicGood, cody), attestation, "has no trusted",
		},

		"hashedrekord, signature":                {signed, signedDigest, believe(scaffolding, foo), "", ""},
		"hashedrekord, another digest":           {signed, attestedDigest, believe(scaffolding, foo), "", "has no trusted"},
		"hashedrekord, another identity":         {signed, signedDigest, believe(scaffolding, cosign.Identity{ExactIssuer: foo.ExactIssuer, ExactSubject: "foo@oidc.local"}), "", "no matching CertificateIdentity"},
		"hashedrekord, another Sigstore":         {signed, signedDigest, believe(publicGood, foo), "", "has no trusted"},
		"hashedrekord, another signature":        {with(signed, flip, "messageSignature", "signature"), signedDigest, believe(scaffolding, foo), "", "has no trusted"},
		"hashedrekord, another log entry":        {with(signed, flip, at("canonicalizedBody")...), signedDigest, believe(scaffolding, foo), "", "has no trusted"},
		"hashedrekord, a signature for a stated": {signed, signedDigest, believe(scaffolding, foo), attestation, "it is a signature and states nothing"},
	} {
		t.Run(what, func(t *testing.T) {
			found := &cosign.Signatures{Digest: c.digest, Bundles: []cosign.Attached{{Name: "recorded", Content: c.bundle}}}
			var err error
			if c.predicate == "" {
				_, err = cosign.Check(found, c.digest, c.policy)
			} else {
				_, err = cosign.CheckStatement(found, c.digest, c.policy, c.predicate, func([]byte) error { return nil })
			}
			var unsigned *cosign.Unsigned
			if c.refuse == "" && err != nil || c.refuse != "" && (!errors.As(err, &unsigned) || !strings.Contains(err.Error(), c.refuse)) {
				t.Errorf("%v, want %q", err, c.refuse)
			}
		})
	}
}
