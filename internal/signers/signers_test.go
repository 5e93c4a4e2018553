package signers_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

const (
	tree   = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
	parent = "parent 4b825dc642cb6eb9a060e54bf8d69288fbee4905\n"
	people = "author A <a@x> 1700000000 +0100\ncommitter C <c@x> 1700000001 +0000\n"
	body   = "\nSubject\n\nBody\n\nTrailer: value\n"
	armor  = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
)

func header(text string) string {
	return "gpgsig " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n ") + "\n"
}

func TestParseCommit(t *testing.T) {
	raw := tree + parent + parent + people + header(armor) + "encoding UTF-8\n" + body
	c, err := signers.ParseCommit([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if want := tree + parent + parent + people + "encoding UTF-8\n" + body; string(c.Payload) != want {
		t.Errorf("payload %q, want %q", c.Payload, want)
	}
	if string(c.Signature) != armor {
		t.Errorf("signature %q", c.Signature)
	}
	if c.Subject() != "Subject" || c.Author != "A <a@x>" || c.Committer != "C <c@x>" || len(c.Parents) != 2 || c.CommitTime.Unix() != 1700000001 {
		t.Errorf("commit %+v", c)
	}
	if got := c.Trailer("trailer"); len(got) != 1 || got[0] != "value" {
		t.Errorf("trailers %v", got)
	}
}

func TestParseCommitRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing":                  "",
		"no tree":                  people + body,
		"short tree":               "tree 4b82\n" + people + body,
		"upper-case id":            strings.ToUpper(tree) + people + body,
		"two trees":                tree + tree + people + body,
		"tree after the committer": tree + people + tree + body,
		"parent after the author":  tree + people + parent + body,
		"no committer":             tree + "author A <a@x> 1 +0000\n" + body,
		"two committers":           tree + people + "committer D <d@x> 1 +0000\n" + body,
		"time that is no number":   tree + strings.Replace(people, "1700000001", "soon", 1) + body,
		"negative time":            tree + strings.Replace(people, "1700000001", "-1", 1) + body,
		"two signatures":           tree + people + header(armor) + header(armor) + body,
		"other format's signature": tree + people + "gpgsig-sha256 x\n" + body,
		"NUL in the headers":       tree + strings.Replace(people, "A <", "A\x00<", 1) + body,
		"stray continuation":       tree + people + " x\n" + body,
	} {
		var bad *signers.Error
		if c, err := signers.ParseCommit([]byte(raw)); !errors.As(err, &bad) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

const aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgVQPzI//DaaPeWkPR6jtja46NHIIJpuEErHgTi7LgR alice"

func TestKeyringRefuses(t *testing.T) {
	sign := func(name, kind, key string) v1alpha1.Signer {
		return v1alpha1.Signer{Name: name, Kind: kind, PublicKey: key}
	}
	for name, c := range map[string]struct {
		signers []v1alpha1.Signer
		want    string
	}{
		"unknown kind":     {[]v1alpha1.Signer{sign("a", "pgp", aliceKey)}, `signer "a": unknown kind`},
		"garbage":          {[]v1alpha1.Signer{sign("a", "ssh", "garbage")}, `signer "a": publicKey is not an OpenSSH public key`},
		"options":          {[]v1alpha1.Signer{sign("a", "ssh", `command="x" `+aliceKey)}, `has options`},
		"two lines":        {[]v1alpha1.Signer{sign("a", "ssh", aliceKey+"\n"+aliceKey)}, `more than one key`},
		"same name":        {[]v1alpha1.Signer{sign("a", "ssh", aliceKey), sign("a", "ssh", aliceKey)}, `listed twice`},
		"same key":         {[]v1alpha1.Signer{sign("a", "ssh", aliceKey), sign("b", "ssh", aliceKey)}, `have the same key`},
		"OpenPGP garbage":  {[]v1alpha1.Signer{sign("a", "openpgp", "garbage")}, `signer "a": publicKey is not an armored OpenPGP key`},
		"DSA":              {[]v1alpha1.Signer{sign("a", "ssh", "ssh-dss AAAA x")}, `signer "a"`},
		"RSA of 1024 bits": {[]v1alpha1.Signer{sign("a", "ssh", smallRSA)}, `at least 2048 bits`},
	} {
		if _, err := signers.NewKeyring(c.signers); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

const smallRSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC2oRH9ISFaddVieKOprPN/wuQDhuNKsI1RRKDyefQf1H9/uNvRq7vptr9qnhGabPErPOmQjV5SsRw8br+Dw39VgURTqmzMc/aWGMVxsXdjbM0Wb3KBppO3HrURjtG2vtb1KSq0TjJ6jRaeeVzWxX0lVwpOd0hFK5CiAwrJd4X20Q=="

// FuzzParseCommit looks for input that panics, and for a payload that does not
// follow from the object: what is signed plus the signature must make it up.
func FuzzParseCommit(f *testing.F) {
	f.Add([]byte(tree + parent + people + header(armor) + body))
	f.Add([]byte(tree + people + "mergetag object x\n type commit\n gpgsig x\n" + body))
	f.Add([]byte(tree + people + "gpgsig \n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := signers.ParseCommit(raw)
		if err != nil {
			var bad *signers.Error
			if !errors.As(err, &bad) || bad.Class == "" || bad.Problem == "" {
				t.Errorf("error %#v", err)
			}
			return
		}
		if len(c.Payload)+len(c.Signature) > len(raw) {
			t.Error("more came out than went in")
		}
		again, err := signers.ParseCommit(c.Payload)
		if err != nil || again.Signature != nil || !bytes.Equal(again.Payload, c.Payload) {
			t.Errorf("the payload does not stand by itself: %v", err)
		}
		if again != nil && (again.Tree != c.Tree || again.Message != c.Message || again.Committer != c.Committer) {
			t.Error("a field does not come from the payload")
		}
	})
}

// FuzzVerify gives the verifier arbitrary signatures; none may be accepted.
func FuzzVerify(f *testing.F) {
	ring, err := signers.NewKeyring([]v1alpha1.Signer{{Name: "alice", Kind: "ssh", PublicKey: aliceKey}})
	if err != nil {
		f.Fatal(err)
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(aliceKey))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(armor))
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\niHUEABYKAB0WIQ\n-----END PGP SIGNATURE-----\n"))
	f.Add(append([]byte("-----BEGIN SSH SIGNATURE-----\n"), pub.Marshal()...))
	f.Fuzz(func(t *testing.T, signature []byte) {
		c := &signers.Commit{Payload: []byte("payload"), Signature: signature}
		who, err := ring.Verify(c, time.Now())
		var bad *signers.Error
		if who != nil || !errors.As(err, &bad) {
			t.Fatalf("%+v, %v", who, err)
		}
	})
}
