package signers_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/internal/signers/x509test"
)

const google = "https://accounts.google.com"

// commitAt is an unsigned commit of a time.
func commitAt(at time.Time) string {
	return fmt.Sprintf("%s%sauthor A <a@x> %d +0000\ncommitter A <a@x> %d +0000\n%s", tree, parent, at.Unix(), at.Unix(), body)
}

// signed puts a signature into a commit.
func signed(t *testing.T, raw, armor string) *signers.Commit {
	t.Helper()
	c, err := signers.ParseCommit([]byte(strings.Replace(raw, "\n\n", "\n"+header(armor)+"\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ring(t *testing.T, s ...v1alpha1.Signer) *signers.Keyring {
	t.Helper()
	r, err := signers.NewKeyring(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func refused(t *testing.T, r *signers.Keyring, c *signers.Commit, now time.Time, class signers.Class, text string) {
	t.Helper()
	who, err := r.Verify(c, now)
	var bad *signers.Error
	if who != nil || !errors.As(err, &bad) || bad.Class != class || !strings.Contains(bad.Error(), text) || bad.Remedy == "" {
		t.Errorf("%+v, %v (class %q)\nwant class %q with %q", who, err, classOf(err), class, text)
	}
}

func classOf(err error) signers.Class {
	var bad *signers.Error
	errors.As(err, &bad)
	if bad == nil {
		return ""
	}
	return bad.Class
}

func accepted(t *testing.T, r *signers.Keyring, c *signers.Commit, now time.Time, name string) *signers.Verified {
	t.Helper()
	who, err := r.Verify(c, now)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if who.Signer != name || who.Kind != signers.KindX509 || len(who.Fingerprint) != 64 || who.Identity == "" {
		t.Fatalf("signer %+v", who)
	}
	return who
}

// TestCorporateCertificate is a certificate that lives for years, without
// anybody who attests times.
func TestCorporateCertificate(t *testing.T) {
	now := time.Now()
	corp, other := x509test.NewAuthority(t, "corp"), x509test.NewAuthority(t, "other")
	valid := x509test.Leaf{Email: "alice@corp.example", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)}
	alice := corp.Issue(t, valid)
	trust := func(subject string) *signers.Keyring {
		return ring(t, v1alpha1.Signer{Name: "alice", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: subject})
	}
	raw := commitAt(now)
	c := signed(t, raw, alice.Sign(t, []byte(raw), x509test.Proof{}))

	who := accepted(t, trust("alice@corp.example"), c, now, "alice")
	if who.Identity != "alice@corp.example" {
		t.Errorf("identity %q", who.Identity)
	}
	accepted(t, trust("*@corp.example"), c, now, "alice")
	accepted(t, trust(""), c, now, "alice")

	for name, subject := range map[string]string{
		"another address":         "bob@corp.example",
		"upper case":              "Alice@corp.example",
		"the end only":            "corp.example",
		"dot is no wildcard":      "alice@corp.exampl.",
		"pattern of another host": "*@evil.example",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, trust(subject), c, now, signers.UnknownKey, "alice@corp.example, whom the trust root in force does not list")
		})
	}
	t.Run("issuer wanted, none stated", func(t *testing.T) {
		r := ring(t, v1alpha1.Signer{Name: "alice", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: "*@corp.example", Issuer: google})
		refused(t, r, c, now, signers.UnknownKey, "does not list")
	})
	t.Run("other authority", func(t *testing.T) {
		mallory := other.Issue(t, valid)
		c := signed(t, raw, mallory.Sign(t, []byte(raw), x509test.Proof{}))
		refused(t, trust("alice@corp.example"), c, now, signers.Untrusted, `no authority pinned for "alice" issued`)
	})
	t.Run("other payload", func(t *testing.T) {
		later := commitAt(now.Add(time.Second))
		c := signed(t, later, alice.Sign(t, []byte(raw), x509test.Proof{}))
		refused(t, trust(""), c, now, signers.Mismatch, "not made for this commit")
	})
	t.Run("expired now", func(t *testing.T) {
		refused(t, trust(""), c, now.AddDate(2, 0, 0), signers.Expired, "not valid now")
	})
	t.Run("expired at the commit's time", func(t *testing.T) {
		raw := commitAt(now.AddDate(-2, 0, 0))
		c := signed(t, raw, alice.Sign(t, []byte(raw), x509test.Proof{}))
		refused(t, trust(""), c, now, signers.Expired, "not valid at the commit's time")
	})
	t.Run("certificate of a server", func(t *testing.T) {
		leaf := valid
		leaf.Usage = x509.ExtKeyUsageServerAuth
		c := signed(t, raw, corp.Issue(t, leaf).Sign(t, []byte(raw), x509test.Proof{}))
		refused(t, trust(""), c, now, signers.Untrusted, "no authority pinned")
	})
	t.Run("signer's own end", func(t *testing.T) {
		end := now.Add(-time.Hour)
		r := ring(t, v1alpha1.Signer{Name: "alice", Kind: "x509", CertificateAuthorities: corp.PEM(), NotAfter: &end})
		refused(t, r, c, now, signers.Expired, "no longer valid now")
	})
	t.Run("no x509 signer at all", func(t *testing.T) {
		r := ring(t, v1alpha1.Signer{Name: "alice", Kind: "ssh", PublicKey: aliceKey})
		refused(t, r, c, now, signers.UnknownKey, "lists no signer of kind x509")
	})
	t.Run("exact name goes before a pattern", func(t *testing.T) {
		r := ring(t, v1alpha1.Signer{Name: "team", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: "*@corp.example"},
			v1alpha1.Signer{Name: "alice", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: "alice@corp.example"})
		accepted(t, r, c, now, "alice")
	})
}

// TestShortLivedCertificate is gitsign: a certificate of ten minutes that a log
// or a time stamp keeps meaningful.
func TestShortLivedCertificate(t *testing.T) {
	now := time.Now()
	fulcio, w, stranger := x509test.NewAuthority(t, "fulcio"), x509test.NewWitness(t), x509test.NewWitness(t)
	made := now.Add(-30 * 24 * time.Hour)
	leaf := x509test.Leaf{
		Email: "alice@example.org", Issuer: google, Usage: x509.ExtKeyUsageCodeSigning,
		NotBefore: made, NotAfter: made.Add(10 * time.Minute),
	}
	alice := fulcio.Issue(t, leaf)
	raw := commitAt(made.Add(time.Minute))
	sign := func(p x509test.Proof) *signers.Commit { return signed(t, raw, alice.Sign(t, []byte(raw), p)) }
	inTime, late := made.Add(time.Minute), made.Add(time.Hour)

	pinned := v1alpha1.Signer{
		Name: "alice", Kind: "x509", Subject: "alice@example.org", Issuer: google,
		CertificateAuthorities: fulcio.PEM(), TransparencyLogKeys: w.LogKeys(), TimestampAuthorities: w.TimestampPEM(),
	}
	rooted := v1alpha1.Signer{Name: "alice", Kind: "x509", Subject: "*@example.org", Issuer: google, TrustedRoot: fulcio.TrustedRoot(t, w)}
	for name, signer := range map[string]v1alpha1.Signer{"pinned keys": pinned, "trusted root": rooted} {
		r := ring(t, signer)
		t.Run(name, func(t *testing.T) {
			who := accepted(t, r, sign(x509test.Proof{Log: w, At: inTime}), now, "alice")
			if who.Identity != "alice@example.org ("+google+")" {
				t.Errorf("identity %q", who.Identity)
			}
			accepted(t, r, sign(x509test.Proof{Stamp: w, At: inTime}), now, "alice")
			accepted(t, r, sign(x509test.Proof{Stamp: w, Log: w, At: inTime}), now, "alice")

			refused(t, r, sign(x509test.Proof{Claimed: inTime}), now, signers.Untimed, "neither a transparency log entry nor a time stamp")
			refused(t, r, sign(x509test.Proof{Log: stranger, At: inTime}), now, signers.Untimed, "transparency log entry")
			refused(t, r, sign(x509test.Proof{Stamp: stranger, At: inTime}), now, signers.Untimed, "time stamp")
			refused(t, r, sign(x509test.Proof{Stamp: w, At: late, Claimed: inTime}), now, signers.Expired, "at the time of its time stamp")
			refused(t, r, sign(x509test.Proof{Stamp: w, At: late}), now, signers.Expired, "was not valid when it was used")
			// The log's library compares with the certificate by itself.
			refused(t, r, sign(x509test.Proof{Log: w, At: late, Claimed: inTime}), now, signers.Untimed, "outside certificate validity")
		})
	}
	t.Run("another identity provider", func(t *testing.T) {
		leaf := leaf
		leaf.Issuer = "https://github.com/login/oauth"
		c := signed(t, raw, fulcio.Issue(t, leaf).Sign(t, []byte(raw), x509test.Proof{Log: w, At: inTime}))
		refused(t, ring(t, rooted), c, now, signers.UnknownKey, "alice@example.org (https://github.com/login/oauth), whom the trust root in force does not list")
	})
	t.Run("log entry of another signature", func(t *testing.T) {
		other := commitAt(made.Add(2 * time.Minute))
		entry := alice.Sign(t, []byte(other), x509test.Proof{Log: w, At: inTime})
		refused(t, ring(t, rooted), signed(t, raw, entry), now, signers.Mismatch, "not made for this commit")
	})
	t.Run("workflow", func(t *testing.T) {
		leaf := leaf
		leaf.Email, leaf.URI, leaf.Issuer = "", "https://github.com/acme/site/.github/workflows/bump.yml@refs/heads/main", "https://token.actions.githubusercontent.com"
		c := signed(t, raw, fulcio.Issue(t, leaf).Sign(t, []byte(raw), x509test.Proof{Log: w, At: inTime}))
		signer := rooted
		signer.Issuer = leaf.Issuer
		signer.Subject = "https://github.com/acme/*/.github/workflows/*@refs/heads/main"
		accepted(t, ring(t, signer), c, now, "alice")
		signer.Subject = "https://github.com/*@refs/heads/main"
		refused(t, ring(t, signer), c, now, signers.UnknownKey, "does not list")
		signer.Subject = "https://github.com/**@refs/heads/main"
		accepted(t, ring(t, signer), c, now, "alice")
	})
}

// TestGitsign is a commit of gitsign itself, by Sigstore's public instance, of
// 2023: its certificate lived for ten minutes.
func TestGitsign(t *testing.T) {
	trusted, err := os.ReadFile("testdata/sigstore-public-good.json")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/gitsign.commit")
	if err != nil {
		t.Fatal(err)
	}
	signer := v1alpha1.Signer{Name: "billy", Kind: "x509", TrustedRoot: string(trusted), Subject: "billy@chainguard.dev", Issuer: google}
	c, err := signers.ParseCommit(raw)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, ring(t, signer), c, time.Now(), "billy")

	signer.Subject = "other@chainguard.dev"
	refused(t, ring(t, signer), c, time.Now(), signers.UnknownKey, "billy@chainguard.dev (https://accounts.google.com)")
	signer.Subject = "billy@chainguard.dev"
	tampered, err := signers.ParseCommit([]byte(strings.Replace(string(raw), "tree 0", "tree 1", 1)))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, ring(t, signer), tampered, time.Now(), signers.Mismatch, "not made for this commit")
}

// TestX509Programs has other programs sign.
func TestX509Programs(t *testing.T) {
	now := time.Now()
	corp := x509test.NewAuthority(t, "corp")
	leaf := corp.Issue(t, x509test.Leaf{Email: "alice@corp.example", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)})
	r := ring(t, v1alpha1.Signer{Name: "alice", Kind: "x509", CertificateAuthorities: corp.PEM(), Subject: "alice@corp.example"})
	dir := t.TempDir()
	leaf.Files(t, dir, "alice")
	raw := commitAt(now)

	t.Run("openssl", func(t *testing.T) {
		pem := execute(t, dir, raw, "openssl", "cms", "-sign", "-binary", "-md", "sha256", "-signer", "alice.crt", "-inkey", "alice.key", "-certfile", "alice.ca", "-outform", "PEM")
		accepted(t, r, signed(t, raw, strings.ReplaceAll(pem, " CMS-", " SIGNED MESSAGE-")), now, "alice")
	})
	t.Run("openssl with an embedded message", func(t *testing.T) {
		pem := execute(t, dir, raw, "openssl", "cms", "-sign", "-nodetach", "-binary", "-md", "sha256", "-signer", "alice.crt", "-inkey", "alice.key", "-outform", "PEM")
		refused(t, r, signed(t, raw, strings.ReplaceAll(pem, " CMS-", " SIGNED MESSAGE-")), now, signers.Malformed, "a message of its own")
	})
	t.Run("openssl with SHA-1", func(t *testing.T) {
		pem := execute(t, dir, raw, "openssl", "cms", "-sign", "-binary", "-md", "sha1", "-signer", "alice.crt", "-inkey", "alice.key", "-outform", "PEM")
		refused(t, r, signed(t, raw, strings.ReplaceAll(pem, " CMS-", " SIGNED MESSAGE-")), now, signers.Unsupported, "digest algorithm")
	})
	t.Run("openssl without attributes", func(t *testing.T) {
		pem := execute(t, dir, raw, "openssl", "cms", "-sign", "-noattr", "-binary", "-md", "sha256", "-signer", "alice.crt", "-inkey", "alice.key", "-outform", "PEM")
		refused(t, r, signed(t, raw, strings.ReplaceAll(pem, " CMS-", " SIGNED MESSAGE-")), now, signers.Malformed, "no signed attributes")
	})
	t.Run("openssl with two signers", func(t *testing.T) {
		corp.Issue(t, x509test.Leaf{Email: "bob@corp.example", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)}).Files(t, dir, "bob")
		pem := execute(t, dir, raw, "openssl", "cms", "-sign", "-binary", "-md", "sha256", "-signer", "alice.crt", "-inkey", "alice.key", "-signer", "bob.crt", "-inkey", "bob.key", "-outform", "PEM")
		refused(t, r, signed(t, raw, strings.ReplaceAll(pem, " CMS-", " SIGNED MESSAGE-")), now, signers.Malformed, "2 signers")
	})
	t.Run("gpgsm", func(t *testing.T) {
		// Its PKCS#12 reader knows RSA only.
		leaf := corp.Issue(t, x509test.Leaf{Email: "alice@corp.example", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), RSA: true})
		leaf.Files(t, dir, "alice")
		accepted(t, r, signed(t, raw, gpgsm(t, dir, corp, raw)), now, "alice")
	})
}

func execute(t *testing.T, dir, stdin, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, problems.String())
	}
	return string(out)
}

// gpgsm signs with GnuPG's x509 program, which writes BER.
func gpgsm(t *testing.T, dir string, corp *x509test.Authority, raw string) string {
	t.Helper()
	if _, err := exec.LookPath("gpgsm"); err != nil {
		t.Skip("gpgsm is not installed")
	}
	// GnuPG's sockets need a short path.
	home, err := os.MkdirTemp("/tmp", "gpgsm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	execute(t, dir, "", "openssl", "pkcs12", "-export", "-in", "alice.crt", "-inkey", "alice.key", "-certfile", "alice.ca", "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-passout", "pass:", "-out", "alice.p12")
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), []byte(corp.PEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	base := []string{"--homedir", home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase-fd", "0", "--disable-crl-checks", "--disable-dirmngr"}
	execute(t, dir, "", "gpgsm", append(base, "--import", "root.pem", "alice.ca")...)
	execute(t, dir, "\n", "gpgsm", append(base, "--import", "alice.p12")...)
	sum := strings.TrimSpace(execute(t, dir, corp.PEM(), "openssl", "x509", "-noout", "-fingerprint", "-sha1"))
	_, fingerprint, _ := strings.Cut(sum, "=")
	if err := os.WriteFile(filepath.Join(home, "trustlist.txt"), []byte(fingerprint+" S relax\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "payload"), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return execute(t, dir, "\n", "gpgsm", append(base, "--armor", "--detach-sign", "--local-user", "alice@corp.example", "payload")...)
}

func TestX509SignerRefuses(t *testing.T) {
	corp, w := x509test.NewAuthority(t, "corp"), x509test.NewWitness(t)
	leaf := corp.Issue(t, x509test.Leaf{Email: "a@x", NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)})
	leaf.Files(t, t.TempDir(), "a")
	for name, c := range map[string]struct {
		signer v1alpha1.Signer
		want   string
	}{
		"garbage":                {v1alpha1.Signer{CertificateAuthorities: "garbage"}, "not a PEM certificate"},
		"public key for a CA":    {v1alpha1.Signer{CertificateAuthorities: w.LogKeys()}, "not a PEM certificate"},
		"only an intermediate":   {v1alpha1.Signer{CertificateAuthorities: pemOf(corp.Intermediate)}, "no self-signed certificate"},
		"leaf as authority":      {v1alpha1.Signer{CertificateAuthorities: pemOf(leaf.Cert)}, "is not an authority"},
		"log key that is none":   {v1alpha1.Signer{CertificateAuthorities: corp.PEM(), TransparencyLogKeys: corp.PEM()}, "not a PEM public key"},
		"trusted root, no name":  {v1alpha1.Signer{TrustedRoot: corp.TrustedRoot(t, w)}, "subject and issuer are needed"},
		"trusted root, no JSON":  {v1alpha1.Signer{TrustedRoot: "x", Subject: "a", Issuer: "b"}, "not a Sigstore trusted root"},
		"trusted root, no CA":    {v1alpha1.Signer{TrustedRoot: `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`, Subject: "a", Issuer: "b"}, "no certificate authority"},
		"time service that ends": {v1alpha1.Signer{CertificateAuthorities: corp.PEM(), TimestampAuthorities: pemOf(corp.Intermediate)}, "no self-signed certificate"},
	} {
		c.signer.Name, c.signer.Kind = "a", "x509"
		if _, err := signers.NewKeyring([]v1alpha1.Signer{c.signer}); err == nil || !strings.Contains(err.Error(), `signer "a": `) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func pemOf(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
