package signers_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgparmor "github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/internal/signers/x509test"
)

// goodCommits are rightly signed commit objects, one of each kind, and the
// keyring that believes them.
func goodCommits(t testing.TB, now time.Time) (map[string][]byte, *signers.Keyring) {
	t.Helper()
	raw := tree + parent + "author A <a@x> 1700000000 +0000\ncommitter A <a@x> 1700000000 +0000\n" + body
	put := func(armored string) []byte {
		return []byte(strings.Replace(raw, "\n\n", "\n"+header(strings.TrimSpace(armored))+"\n", 1))
	}
	corp := x509test.NewAuthority(t, "corp")
	leaf := corp.Issue(t, x509test.Leaf{Email: "cora@corp.example", NotBefore: time.Unix(1600000000, 0), NotAfter: now.AddDate(1, 0, 0)})
	sshLine, sshArmor := sshGood(t, raw)
	pgpKey, pgpArmor := pgpGood(t, raw)
	ring, err := signers.NewKeyring([]v1alpha1.Signer{
		{Name: "alice", Kind: "ssh", PublicKey: sshLine},
		{Name: "gina", Kind: "openpgp", PublicKey: pgpKey},
		{Name: "cora", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: "cora@corp.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"alice": put(sshArmor), "gina": put(pgpArmor),
		"cora": put(leaf.Sign(t, []byte(raw), x509test.Proof{Claimed: time.Unix(1700000000, 0)})),
	}, ring
}

func sshGood(t testing.TB, raw string) (line, armored string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := sshsig.Sign(strings.NewReader(raw), key, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))), string(sshsig.Armor(signature))
}

func pgpGood(t testing.TB, raw string) (public, armored string) {
	t.Helper()
	then := &packet.Config{Time: func() time.Time { return time.Unix(1700000000, 0) }, Algorithm: packet.PubKeyAlgoEdDSA}
	key, err := openpgp.NewEntity("Gina", "", "gina@example.com", then)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	w, err := pgparmor.Encode(&text, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(key.Serialize(w), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	var signature bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&signature, key, strings.NewReader(raw), then); err != nil {
		t.Fatal(err)
	}
	return text.String(), signature.String()
}

// FuzzMutatedCommit changes rightly signed commits. Whatever is believed
// afterwards must be the very payload that was signed, by the same signer.
func FuzzMutatedCommit(f *testing.F) {
	now := time.Now()
	good, ring := goodCommits(f, now)
	for _, name := range []string{"alice", "gina", "cora"} {
		c, err := signers.ParseCommit(good[name])
		if err != nil {
			f.Fatal(err)
		}
		if who, err := ring.Verify(c, now); err != nil || who.Signer != name {
			f.Fatalf("%s: %+v, %v", name, who, err)
		}
		f.Add(name, uint(3), byte(1), []byte(nil))
		f.Add(name, uint(200), byte(0x80), []byte("x"))
		f.Add(name, uint(len(good[name])-2), byte(0x20), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, name string, at uint, flip byte, insert []byte) {
		original := good[name]
		if original == nil {
			return
		}
		changed := bytes.Clone(original)
		at %= uint(len(changed))
		changed[at] ^= flip
		changed = append(changed[:at:at], append(bytes.Clone(insert), changed[at:]...)...)
		c, err := signers.ParseCommit(changed)
		if err != nil {
			return
		}
		who, err := ring.Verify(c, now)
		if err != nil {
			return
		}
		want, err := signers.ParseCommit(original)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.Payload, want.Payload) || who.Signer != name {
			t.Fatalf("believed %q of %s", changed, who.Signer)
		}
	})
}

// TestEveryBitOfThePayloadIsSigned flips each bit of the payload of each kind.
func TestEveryBitOfThePayloadIsSigned(t *testing.T) {
	now := time.Now()
	good, ring := goodCommits(t, now)
	for name, raw := range good {
		c, err := signers.ParseCommit(raw)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.Payload {
			payload := bytes.Clone(c.Payload)
			payload[i] ^= 1 << (i % 8)
			tampered := &signers.Commit{Payload: payload, Signature: c.Signature, CommitTime: c.CommitTime}
			if who, err := ring.Verify(tampered, now); err == nil {
				t.Fatalf("%s: byte %d may be changed, signed by %+v", name, i, who)
			}
		}
	}
}

// FuzzCMS gives the reader of CMS signatures arbitrary ones. None may be
// believed, and each must be refused with a reason.
func FuzzCMS(f *testing.F) {
	now := time.Now()
	good, _ := goodCommits(f, now)
	c, err := signers.ParseCommit(good["cora"])
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(c.Signature)
	f.Add(block.Bytes)
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 2000))
	f.Add([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff})
	if gitsign, err := os.ReadFile("testdata/gitsign.commit"); err == nil {
		if c, err := signers.ParseCommit(gitsign); err == nil {
			block, _ := pem.Decode(c.Signature)
			f.Add(block.Bytes)
		}
	}
	// The keyring trusts an authority of its own.
	corp, w := x509test.NewAuthority(f, "corp"), x509test.NewWitness(f)
	ring, err := signers.NewKeyring([]v1alpha1.Signer{
		{Name: "cora", Kind: "x509", CertificateAuthorities: corp.PEM()},
		{Name: "sigrid", Kind: "x509", TrustedRoot: corp.TrustedRoot(f, w), Subject: "**", Issuer: "https://accounts.google.com"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		armored := pem.EncodeToMemory(&pem.Block{Type: "SIGNED MESSAGE", Bytes: der})
		who, err := ring.Verify(&signers.Commit{Payload: c.Payload, Signature: armored, CommitTime: c.CommitTime}, now)
		var bad *signers.Error
		if who != nil || !errors.As(err, &bad) || bad.Class == "" || bad.Remedy == "" {
			t.Fatalf("%+v, %v", who, err)
		}
	})
}

// FuzzTrustRoot gives the decoder of trust roots arbitrary text: no panic, and
// what is a trust root has signers that could sign.
func FuzzTrustRoot(f *testing.F) {
	f.Add([]byte("apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\nversion: 1\nsigners:\n- name: a\n  kind: ssh\n  publicKey: " + aliceKey + "\n"))
	f.Add([]byte("apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\nversion: 1\nsigners:\n- name: a\n  kind: x509\n  subject: '*'\n  issuer: i\n  trustedRoot: '{}'\nrules:\n- signers: [a]\n  paths: ['**']\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("signers:\n- {name: a, kind: openpgp, publicKey: '-----BEGIN PGP PUBLIC KEY BLOCK-----'}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := v1alpha1.DecodeTrustRoot("fuzz", text)
		if err != nil {
			return
		}
		if r.Version < 1 || len(r.Signers) == 0 {
			t.Errorf("accepted %+v", r)
		}
		if _, err := signers.NewKeyring(r.Signers); err != nil && !strings.Contains(err.Error(), "signer") {
			t.Errorf("the error names nobody: %v", err)
		}
	})
}
