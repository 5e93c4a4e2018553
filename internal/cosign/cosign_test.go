package cosign_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

const (
	subject = "builder@example.com"
	issuer  = "https://issuer.example.com"
)

// registry is a repository with two artifacts.
type registry struct {
	name.Repository
	digest, other string
}

func newRegistry(t *testing.T, referrers bool) *registry {
	t.Helper()
	r := &registry{Repository: cosigntest.Repository(t, "team/app", referrers)}
	for tag, digest := range map[string]*string{"v1": &r.digest, "v2": &r.other} {
		image, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		*digest = cosigntest.Push(t, r.Tag(tag), image)
	}
	return r
}

func byKeys(t *testing.T, keys ...*cosigntest.Key) *cosign.Policy {
	t.Helper()
	named := map[string][]byte{}
	for i, k := range keys {
		named[string(rune('a'+i))+".pub"] = k.PEM(t)
	}
	p, err := cosign.ByKeys(named)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func byIdentity(t *testing.T, root []byte, issuer, subject string) *cosign.Policy {
	t.Helper()
	p, err := cosign.ByIdentities(root, cosign.Identity{Issuer: "^nobody$", Subject: "x"}, cosign.Identity{Issuer: issuer, Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVerify(t *testing.T) {
	key, stranger := cosigntest.NewKey(t), cosigntest.NewKey(t)
	sigstore, strangers := cosigntest.NewSigstore(t), cosigntest.NewSigstore(t)
	root := sigstore.TrustedRoot(t, false)
	for name, c := range map[string]struct {
		attach func(*testing.T, *registry)
		policy func(*testing.T) *cosign.Policy
		bundle bool
		signer string
		refuse string
	}{
		"key": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, stranger.Annotations(t, p))
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, p))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, signer: "a.pub (SHA-256 ",
		},
		"one of two keys": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, p))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, stranger, key) }, signer: "b.pub (SHA-256 ",
		},
		"key, bundle": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachBundle(t, r.Repository, r.digest, key.Bundle(t, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, bundle: true, signer: "a.pub",
		},
		"identity": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, sigstore.Annotations(t, subject, issuer, p, true))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, "^https://issuer", "@example.com$") }, signer: subject + " by " + issuer,
		},
		"identity, bundle": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachBundle(t, r.Repository, r.digest, sigstore.Bundle(t, subject, issuer, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, "^https://issuer", "@example.com$") }, bundle: true, signer: subject + " by " + issuer,
		},
		"nothing": {
			attach: func(*testing.T, *registry) {},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "has no signature",
		},
		"only a stranger's key": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, stranger.Annotations(t, p))
				cosigntest.AttachBundle(t, r.Repository, r.digest, stranger.Bundle(t, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "it is not by any of the keys a.pub",
		},
		"a signature of another digest": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.other)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, p))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "it is a signature of sha256:",
		},
		"a bundle of another digest": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachBundle(t, r.Repository, r.digest, key.Bundle(t, r.other, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "digest",
		},
		"a payload of another kind": {
			attach: func(t *testing.T, r *registry) {
				p := []byte(strings.Replace(string(cosigntest.Payload(r.digest)), "cosign container image signature", "something else", 1))
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, p))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: `"something else" and not an artifact`,
		},
		"a changed payload": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, cosigntest.Payload(r.other)))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "not by any of the keys",
		},
		"an attestation": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachBundle(t, r.Repository, r.digest, key.Bundle(t, r.digest, "https://spdx.dev/Document"))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: `it states "https://spdx.dev/Document"`,
		},
		"an identity's attestation": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachBundle(t, r.Repository, r.digest, sigstore.Bundle(t, subject, issuer, r.digest, "https://spdx.dev/Document"))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, issuer, subject) }, refuse: `it states "https://spdx.dev/Document"`,
		},
		"another identity": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, sigstore.Annotations(t, "mallory@example.com", issuer, p, true))
				cosigntest.AttachBundle(t, r.Repository, r.digest, sigstore.Bundle(t, subject, "https://other.example.com", r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, "^"+issuer+"$", "^"+subject+"$") }, refuse: "certificate identit",
		},
		"a stranger's Sigstore": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, strangers.Annotations(t, subject, issuer, p, true))
				cosigntest.AttachBundle(t, r.Repository, r.digest, strangers.Bundle(t, subject, issuer, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, issuer, subject) }, refuse: "has no trusted signature",
		},
		"not logged": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, sigstore.Annotations(t, subject, issuer, p, false))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, issuer, subject) }, refuse: "has no trusted signature",
		},
		"certificate not in the log of certificates": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, sigstore.Annotations(t, subject, issuer, p, true))
			},
			policy: func(t *testing.T) *cosign.Policy {
				return byIdentity(t, sigstore.TrustedRoot(t, true), issuer, subject)
			}, refuse: "signed certificate timestamp",
		},
		"a key where an identity is named": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, key.Annotations(t, p))
				cosigntest.AttachBundle(t, r.Repository, r.digest, key.Bundle(t, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byIdentity(t, root, issuer, subject) }, refuse: "it was made with a key",
		},
		"an identity where a key is named": {
			attach: func(t *testing.T, r *registry) {
				p := cosigntest.Payload(r.digest)
				cosigntest.AttachLegacy(t, r.Repository, r.digest, p, sigstore.Annotations(t, subject, issuer, p, true))
				cosigntest.AttachBundle(t, r.Repository, r.digest, sigstore.Bundle(t, subject, issuer, r.digest, cosigntest.SignPredicate))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "not by any of the keys",
		},
		"rubbish": {
			attach: func(t *testing.T, r *registry) {
				cosigntest.AttachLegacy(t, r.Repository, r.digest, []byte("x"), map[string]string{"dev.cosignproject.cosign/signature": "*"})
				cosigntest.AttachBundle(t, r.Repository, r.digest, []byte("{"))
			},
			policy: func(t *testing.T) *cosign.Policy { return byKeys(t, key) }, refuse: "the layer has no signature",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t, true)
			c.attach(t, r)
			v, err := cosign.Verify(context.Background(), cosign.Remote(r.Repository), r.digest, c.policy(t))
			if c.refuse != "" {
				var unsigned *cosign.Unsigned
				if !errors.As(err, &unsigned) || !strings.Contains(err.Error(), c.refuse) {
					t.Fatalf("%+v, error %v, want a refusal with %q", v, err, c.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v.Bundle != c.bundle || !strings.HasPrefix(v.Signer, c.signer) {
				t.Errorf("%+v, want signer %q, bundle %t", v, c.signer, c.bundle)
			}
		})
	}
}

// TestWithoutReferrersSupport: older registries have bundles behind a tag.
func TestWithoutReferrersSupport(t *testing.T) {
	key := cosigntest.NewKey(t)
	r := newRegistry(t, false)
	cosigntest.AttachBundle(t, r.Repository, r.digest, key.Bundle(t, r.digest, cosigntest.SignPredicate))
	if v, err := cosign.Verify(context.Background(), cosign.Remote(r.Repository), r.digest, byKeys(t, key)); err != nil || !v.Bundle {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestUnreachableIsNoRefusal: an operator must be able to tell an attack from a
// registry that is gone.
func TestUnreachableIsNoRefusal(t *testing.T) {
	r, err := name.NewRepository("127.0.0.1:1/x", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cosign.Verify(context.Background(), cosign.Remote(r), "sha256:"+strings.Repeat("0", 64), byKeys(t, cosigntest.NewKey(t)))
	var unsigned *cosign.Unsigned
	if err == nil || errors.As(err, &unsigned) {
		t.Errorf("%v", err)
	}
}

func TestPoliciesThatAreNone(t *testing.T) {
	root := cosigntest.NewSigstore(t).TrustedRoot(t, false)
	for name, policy := range map[string]func() error{
		"no public key":         func() error { _, err := cosign.ByKeys(nil); return err },
		"not a PEM public key":  func() error { _, err := cosign.ByKeys(map[string][]byte{"x.pub": []byte("x")}); return err },
		"would trust everybody": func() error { _, err := cosign.ByIdentities(root); return err },
		"trusted root cannot be": func() error {
			_, err := cosign.ByIdentities([]byte("x"), cosign.Identity{Issuer: "a", Subject: "b"})
			return err
		},
		`issuer "(" and subject "b"`: func() error {
			_, err := cosign.ByIdentities(root, cosign.Identity{Issuer: "(", Subject: "b"})
			return err
		},
		`issuer "a" and subject ""`: func() error { _, err := cosign.ByIdentities(root, cosign.Identity{Issuer: "a"}); return err },
	} {
		if err := policy(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func TestDigestForm(t *testing.T) {
	for _, digest := range []string{"", "v1", "sha256:", "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("a", 64)} {
		if _, err := cosign.Verify(context.Background(), nil, digest, byKeys(t, cosigntest.NewKey(t))); err == nil {
			t.Errorf("%q taken for a digest", digest)
		}
	}
}
