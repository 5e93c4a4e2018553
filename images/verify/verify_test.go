package verify_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

const (
	subject = "builder@example.com"
	issuer  = "https://issuer.example.com"
	sbom    = "https://spdx.dev/Document"
)

var (
	digest = "sha256:" + strings.Repeat("11", 32)
	other  = "sha256:" + strings.Repeat("22", 32)
	child  = "sha256:" + strings.Repeat("33", 32)
)

// world has everybody who signs.
type world struct {
	t                   testing.TB
	key, stranger       *cosigntest.Key
	sigstore, strangers *cosigntest.Sigstore
	tiles               cosigntest.Tiles
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, key: cosigntest.NewKey(t), stranger: cosigntest.NewKey(t),
		sigstore: cosigntest.NewSigstore(t), strangers: cosigntest.NewSigstore(t), tiles: cosigntest.NewTiles(t),
	}
}

// policy compiles authorities, which say KEY for the key and ID for the
// identity.
func (w *world) policy(authorities string, more ...string) *policy.Policy {
	w.t.Helper()
	quoted, err := json.Marshal(string(w.key.PEM(w.t)))
	if err != nil {
		w.t.Fatal(err)
	}
	// The key last: in one of thirty, two of its letters are ID.
	authorities = strings.ReplaceAll(authorities, "ID", fmt.Sprintf("identities: [{issuer: %q, subject: %q}]", issuer, subject))
	authorities = strings.ReplaceAll(authorities, "KEY", "{data: "+string(quoted)+"}")
	text := "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"example.org/**\"}]\n  authorities:\n" + authorities + strings.Join(more, "")
	p, err := policy.Compile(policy.Files{
		policy.File: []byte(text), "trust/trusted_root.json": w.sigstore.TrustedRoot(w.t, false),
		"trust/ct.trusted_root.json": w.sigstore.TrustedRoot(w.t, true), "trust/tiles.trusted_root.json": w.tiles.TrustedRoot(w.t),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func payload(of string, annotations map[string]string) cosign.Signatures {
	return cosign.Signatures{Payloads: []cosign.Attached{{Name: "sha256:sig", Content: cosigntest.Payload(of), Annotations: annotations}}}
}

func bundled(data []byte) cosign.Signatures {
	return cosign.Signatures{Bundles: []cosign.Attached{{Name: "sha256:bundle", Content: data}}}
}

const (
	byKey      = "    - {name: team, key: KEY}\n"
	byIdentity = "    - {name: ci, keyless: {ID}}\n"
	attested   = "    - name: team\n      key: KEY\n      attestations: [{name: sbom, predicateType: spdx, policy: {type: cel, data: 'predicate.packages.all(p, p != \"evil\")'}}]\n"
)

// TestAttacks is the table of what must not run, each with what may.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	statement := func(of, predicate string) []byte { return cosigntest.StatementThat(of, sbom, predicate) }
	for name, c := range map[string]struct {
		authorities string
		attack      cosign.Signatures
		refusal     string
		twin        cosign.Signatures
	}{
		"unsigned": {
			byKey,
			cosign.Signatures{},
			"has no signature; sign it with: cosign sign",
			payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))),
		},
		"wrong key": {
			byKey, payload(digest, w.stranger.Annotations(t, cosigntest.Payload(digest))), "not by any of the keys",
			payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))),
		},
		"wrong key, bundle": {
			byKey, bundled(w.stranger.Bundle(t, digest, cosigntest.SignPredicate)), "has no trusted signature",
			bundled(w.key.Bundle(t, digest, cosigntest.SignPredicate)),
		},
		"signature of another digest": {
			byKey, payload(other, w.key.Annotations(t, cosigntest.Payload(other))), "it is a signature of " + other,
			payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))),
		},
		"bundle of another digest": {
			byKey, bundled(w.key.Bundle(t, other, cosigntest.SignPredicate)), "does not match",
			bundled(w.key.Bundle(t, digest, cosigntest.SignPredicate)),
		},
		"attestation for a signature": {
			byKey, bundled(w.key.Bundle(t, digest, sbom)), "which is not that the artifact is signed",
			bundled(w.key.Bundle(t, digest, cosigntest.SignPredicate)),
		},
		"untrusted Fulcio": {
			byIdentity, bundled(w.strangers.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "has no trusted signature",
			bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)),
		},
		"expired certificate": {
			byIdentity, bundled(w.sigstore.Late().Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "has no trusted signature",
			bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)),
		},
		"another identity": {
			byIdentity, bundled(w.sigstore.Bundle(t, "mallory@example.com", issuer, digest, cosigntest.SignPredicate)), "no matching CertificateIdentity",
			bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)),
		},
		"another issuer": {
			byIdentity, bundled(w.sigstore.Bundle(t, subject, "https://evil.example.com", digest, cosigntest.SignPredicate)), "no matching CertificateIdentity",
			payload(digest, w.sigstore.Annotations(t, subject, issuer, cosigntest.Payload(digest), true)),
		},
		"missing transparency proof": {
			byIdentity, payload(digest, w.sigstore.Annotations(t, subject, issuer, cosigntest.Payload(digest), false)), "has no trusted signature",
			payload(digest, w.sigstore.Annotations(t, subject, issuer, cosigntest.Payload(digest), true)),
		},
		"certificate in no log": {"    - {name: ci, keyless: {trustRootRef: ct, ID}}\n", bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "signed certificate timestamp", cosign.Signatures{}},
		"certificate in no log, ignored": {
			"    - {name: ci, keyless: {trustRootRef: ct, insecureIgnoreSCT: true, ID}}\n", bundled(w.strangers.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "has no trusted signature",
			bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)),
		},
		"Rekor v2 of another log": {
			"    - {name: ci, keyless: {trustRootRef: tiles, ID}}\n", bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "has no trusted signature",
			bundled(w.tiles.BundleOf(t, subject, issuer, cosigntest.Statement(digest, cosigntest.SignPredicate), true)),
		},
		"Rekor v2 of another digest": {
			"    - {name: ci, keyless: {trustRootRef: tiles, ID}, rfc3161timestamp: {trustRootRef: tiles}}\n",
			bundled(w.tiles.BundleOf(t, subject, issuer, cosigntest.Statement(other, cosigntest.SignPredicate), true)), "does not match",
			bundled(w.tiles.BundleOf(t, subject, issuer, cosigntest.Statement(digest, cosigntest.SignPredicate), true)),
		},
		"Rekor v2 without a time stamp": {
			"    - {name: ci, keyless: {trustRootRef: tiles, ID}}\n",
			bundled(w.tiles.BundleOf(t, subject, issuer, cosigntest.Statement(digest, cosigntest.SignPredicate), false)), "has no trusted signature",
			bundled(w.tiles.BundleOf(t, subject, issuer, cosigntest.Statement(digest, cosigntest.SignPredicate), true)),
		},
		"no time stamp": {
			"    - {name: ci, keyless: {ID}, rfc3161timestamp: {trustRootRef: tiles}}\n",
			bundled(w.sigstore.Bundle(t, subject, issuer, digest, cosigntest.SignPredicate)), "timestamp",
			cosign.Signatures{},
		},
		"key without a log entry": {"    - {name: team, key: KEY, ctlog: {}}\n", payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))), "has no trusted signature", cosign.Signatures{}},
		"attestation for another subject": {
			attested, bundled(w.key.BundleOf(t, statement(other, `{"packages":[]}`))), "does not match",
			bundled(w.key.BundleOf(t, statement(digest, `{"packages":["good"]}`))),
		},
		"attestation of another type": {
			attested, bundled(w.key.Bundle(t, digest, "https://example.org/other")), `wanted is "https://spdx.dev/Document"`,
			bundled(w.key.BundleOf(t, statement(digest, `{"packages":[]}`))),
		},
		"signature for an attestation": {
			attested, bundled(w.key.Bundle(t, digest, cosigntest.SignPredicate)), "sbom: ",
			cosign.Signatures{Envelopes: []cosign.Attached{{Name: "x", Content: w.key.EnvelopeOf(t, statement(digest, `{"packages":[]}`))}}},
		},
		"predicate fails its CEL": {
			attested, bundled(w.key.BundleOf(t, statement(digest, `{"packages":["evil"]}`))), "does not satisfy the policy",
			bundled(w.key.BundleOf(t, statement(digest, `{"packages":["good"]}`))),
		},
		"predicate that CEL cannot read": {
			attested, bundled(w.key.BundleOf(t, statement(digest, `{}`))), "cannot be evaluated",
			bundled(w.key.BundleOf(t, statement(digest, `{"packages":[]}`))),
		},
		"envelope by a stranger": {
			attested,
			cosign.Signatures{Envelopes: []cosign.Attached{{Name: "x", Content: w.stranger.EnvelopeOf(t, statement(digest, `{"packages":[]}`))}}},
			"sbom: ",
			cosign.Signatures{Envelopes: []cosign.Attached{{Name: "x", Content: w.key.EnvelopeOf(t, statement(digest, `{"packages":[]}`))}}},
		},
		"wrong format": {
			"    - {name: team, key: KEY, signatureFormat: bundle}\n", payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))), "has no signature",
			bundled(w.key.Bundle(t, digest, cosigntest.SignPredicate)),
		},
		"static": {"    - static: {action: fail, message: never again}\n", payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))), "never again", cosign.Signatures{}},
		"rubbish": {
			byKey,
			cosign.Signatures{Bundles: []cosign.Attached{{Content: []byte("{")}}, Payloads: []cosign.Attached{{Content: []byte("x")}}},
			"has no trusted signature",
			payload(digest, w.key.Annotations(t, cosigntest.Payload(digest))),
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.policy(c.authorities)
			v := judge(p, digest, &c.attack)
			var denied *verify.DeniedError
			if err := v.Err(); v.Allowed || !errors.As(err, &denied) || !strings.Contains(err.Error(), c.refusal) {
				t.Fatalf("allowed %t: %s, want a refusal with %q", v.Allowed, v.Reason, c.refusal)
			}
			if c.twin.Empty() {
				return
			}
			if v := judge(p, digest, &c.twin); !v.Allowed {
				t.Errorf("the legitimate twin is denied: %s", v.Reason)
			}
		})
	}
}

// judge judges example.org/app with what is attached to its digest.
func judge(p *policy.Policy, digest string, s *cosign.Signatures, more ...string) verify.Verdict {
	image := verify.Image{Name: "example.org/app:1", Digests: append([]string{digest}, more...)}
	return verify.Judge(p, image, func(d string) (*cosign.Signatures, error) {
		if d != digest {
			return nil, nil
		}
		return s, nil
	})
}

func TestPolicies(t *testing.T) {
	w := newWorld(t)
	signed := payload(digest, w.key.Annotations(t, cosigntest.Payload(digest)))
	second := "---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: q}\nspec:\n  MODE\n  images: [{glob: \"example.org/app:*\"}]\n  authorities: [{static: {action: fail}}]\n"
	trust := "---\napiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: site}\nspec: {noMatch: MATCH, deny: [{digest: \"" + child + "\", reason: CVE-1}]}\n"
	t.Run("all matching policies must pass", func(t *testing.T) {
		if v := judge(w.policy(byKey, strings.Replace(second, "MODE", "mode: enforce", 1)), digest, &signed); v.Allowed || !strings.Contains(v.Reason, "policy q: authority-0: is denied") {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a policy may only warn", func(t *testing.T) {
		if v := judge(w.policy(byKey, strings.Replace(second, "MODE", "mode: warn", 1)), digest, &signed); !v.Allowed || v.Reason == "" {
			t.Errorf("%+v", v)
		}
	})
	t.Run("any authority is enough", func(t *testing.T) {
		if v := judge(w.policy(byIdentity+byKey), digest, &signed); !v.Allowed || len(v.Rules[0].Authorities) != 2 || !strings.HasPrefix(v.Rules[0].Authorities[1].Signer, "the key (SHA-256 ") {
			t.Errorf("%+v", v)
		}
	})
	t.Run("the deny list wins", func(t *testing.T) {
		p := w.policy(byKey, strings.Replace(trust, "MATCH", "allow", 1))
		if v := judge(p, digest, &signed, child); v.Allowed || !strings.Contains(v.Reason, "deny list: CVE-1") {
			t.Errorf("%+v", v)
		}
		if v := judge(p, digest, &signed, other); !v.Allowed {
			t.Errorf("%+v", v)
		}
	})
	t.Run("what nothing is about", func(t *testing.T) {
		for match, allowed := range map[string]bool{"deny": false, "warn": true, "allow": true} {
			p := w.policy(byKey, strings.Replace(trust, "MATCH", match, 1))
			v := verify.Judge(p, verify.Image{Name: "evil.org/app:1", Digests: []string{digest}}, nil)
			if v.Allowed != allowed || !v.Settled() || (match == "allow") != (v.Reason == "") {
				t.Errorf("%s: %+v", match, v)
			}
		}
	})
	t.Run("the signature of an index covers its manifests", func(t *testing.T) {
		if v := judge(w.policy(byKey), digest, &signed, other); !v.Allowed || v.Rules[0].Authorities[0].Digest != digest {
			t.Errorf("%+v", v)
		}
	})
	t.Run("signatures that cannot be read are none", func(t *testing.T) {
		v := verify.Judge(w.policy(byKey), verify.Image{Name: "example.org/app:1", Digests: []string{digest}}, func(string) (*cosign.Signatures, error) { return nil, errors.New("disk on fire") })
		if v.Allowed || !strings.Contains(v.Reason, "disk on fire") || v.Settled() {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a name with the digest of another", func(t *testing.T) {
		pass := w.policy("    - static: {action: pass}\n")
		pass.Rules[0].WarnOnly = true // which changes nothing about it
		v := verify.Judge(pass, verify.Image{Name: "example.org/app@" + digest, Digests: []string{other, child}}, nil)
		if v.Allowed || !strings.Contains(v.Reason, "digest of something else") || !v.Settled() {
			t.Errorf("%+v", v)
		}
		for _, own := range []string{other, child} {
			if v := verify.Judge(pass, verify.Image{Name: "example.org/app@" + own, Digests: []string{other, child}}, nil); !v.Allowed {
				t.Errorf("%+v", v)
			}
		}
	})
	t.Run("no digest, no judgement", func(t *testing.T) {
		if v := verify.Judge(w.policy("    - static: {action: pass}\n"), verify.Image{Name: "example.org/app:1"}, nil); v.Allowed {
			t.Errorf("%+v", v)
		}
	})
}

// TestWithoutNetwork runs the tables where there is no network and no socket.
func TestWithoutNetwork(t *testing.T) {
	if imagetest.Alone() {
		t.Skip("is alone already")
	}
	if err := imagetest.WithoutSockets(t, "^(TestAttacks|TestPolicies)$"); err != nil {
		t.Error(err)
	}
	// Were anybody asked, it would be seen.
	if err := imagetest.WithoutSockets(t, "^TestThatAsksSomebody$"); !imagetest.KilledForASocket(err) {
		t.Errorf("a judgement that asks somebody: %v", err)
	}
}

// TestThatAsksSomebody is a judgement that must not get to its end where there are no sockets.
func TestThatAsksSomebody(t *testing.T) {
	if !imagetest.Alone() {
		t.Skip("is run by TestWithoutNetwork")
	}
	w := newWorld(t)
	v := verify.Judge(w.policy(byKey), verify.Image{Name: "example.org/app:1", Digests: []string{digest}}, func(string) (*cosign.Signatures, error) {
		conn, err := net.Dial("tcp", "127.0.0.1:1")
		if err == nil {
			conn.Close()
		}
		found := payload(digest, w.key.Annotations(t, cosigntest.Payload(digest)))
		return &found, nil // the judgement does not depend on it
	})
	t.Logf("asked, and went on: %+v", v)
}

func TestMain(m *testing.M) { imagetest.Main(m) }

func BenchmarkJudge(b *testing.B) {
	w := newWorld(b)
	for name, c := range map[string]struct {
		authorities string
		signatures  cosign.Signatures
	}{
		"key":         {byKey, payload(digest, w.key.Annotations(b, cosigntest.Payload(digest)))},
		"key-bundle":  {byKey, bundled(w.key.Bundle(b, digest, cosigntest.SignPredicate))},
		"identity":    {byIdentity, bundled(w.sigstore.Bundle(b, subject, issuer, digest, cosigntest.SignPredicate))},
		"identity-v2": {"    - {name: ci, keyless: {trustRootRef: tiles, ID}}\n", bundled(w.tiles.BundleOf(b, subject, issuer, cosigntest.Statement(digest, cosigntest.SignPredicate), true))},
		"attestation": {attested, bundled(w.key.BundleOf(b, cosigntest.StatementThat(digest, sbom, `{"packages":["good"]}`)))},
	} {
		p := w.policy(c.authorities)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if v := judge(p, digest, &c.signatures); !v.Allowed {
					b.Fatal(v.Reason)
				}
			}
		})
	}
}

func FuzzJudge(f *testing.F) {
	w := newWorld(f)
	p := w.policy(byKey + byIdentity + attested)
	f.Add(w.key.Bundle(f, digest, sbom), cosigntest.Payload(digest), w.key.EnvelopeOf(f, cosigntest.Statement(digest, sbom)), "x")
	stranger := w.strangers.Annotations(f, subject, issuer, cosigntest.Payload(digest), true)
	f.Add(w.strangers.Bundle(f, subject, issuer, digest, cosigntest.SignPredicate), cosigntest.Payload(digest), []byte("{}"), stranger["dev.sigstore.cosign/bundle"])
	f.Fuzz(func(t *testing.T, bundle, signed, envelope []byte, log string) {
		annotations := map[string]string{}
		for k, v := range stranger {
			annotations[k] = v
		}
		annotations["dev.sigstore.cosign/bundle"] = log
		v := judge(p, digest, &cosign.Signatures{
			Bundles: []cosign.Attached{{Content: bundle}}, Payloads: []cosign.Attached{{Content: signed, Annotations: annotations}}, Envelopes: []cosign.Attached{{Content: envelope, Annotations: annotations}},
		})
		// The only thing in the corpus by somebody trusted is an attestation that
		// does not satisfy its policy.
		if v.Allowed {
			t.Fatalf("allowed: %+v", v)
		}
	})
}
