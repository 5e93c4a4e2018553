package repository_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers/x509test"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/repository"
)

// commented is a trust root as people write them; %A and %B are keys.
const commented = `# Who may sign.
apiVersion: bothy.dev/v1alpha1
kind: TrustRoot
version: 3 # raise it at each change

signers:
  # Alice leads.
  - name: alice
    kind: ssh
    publicKey: "%A" # on her token

  # Bob helps.
  # He is away in May.
  - name: bob
    kind: ssh
    publicKey: |
      %B

rules:
  # Everything.
  - signers: [alice, bob]
    paths: ["**"]

  # Only apps.
  - signers:
      - bob
    paths:
      - apps/
# The end.
`

type trustCase struct {
	*gittest.Repo
	alice, bob, carol *gittest.Key
	t                 *testing.T
}

func newTrustCase(t *testing.T) *trustCase {
	t.Helper()
	isolate(t)
	c := &trustCase{Repo: gittest.NewRepo(t), alice: gittest.SSHKey(t, "alice"), bob: gittest.SSHKey(t, "bob"), carol: gittest.SSHKey(t, "carol"), t: t}
	c.Write("trust/root.yaml", strings.NewReplacer("%A", c.alice.Public, "%B", c.bob.Public).Replace(commented))
	c.Write("trust/allowed_signers", "alice namespaces=\"git\" x\n")
	c.Commit(c.alice, "first")
	return c
}

func (c *trustCase) open() *repository.Trust {
	c.t.Helper()
	trust, err := repository.OpenTrust(filepath.Join(c.Dir, "trust"))
	if err != nil {
		c.t.Fatal(err)
	}
	return trust
}

func (c *trustCase) text() string {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.Dir, "trust", "root.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(data)
}

// changed saves and returns the lines that differ, with - and +.
func (c *trustCase) changed(trust *repository.Trust) string {
	c.t.Helper()
	if err := trust.Save(); err != nil {
		c.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(c.Git("diff", "-U0", "--", "trust/root.yaml")) {
		if (line[0] == '+' || line[0] == '-') && !strings.HasPrefix(line, "+++") && !strings.HasPrefix(line, "---") {
			out.WriteString(line)
		}
	}
	if _, err := v1alpha1.DecodeTrustRoot("trust/root.yaml", []byte(c.text())); err != nil {
		c.t.Errorf("what was written is no trust root: %v", err)
	}
	return out.String()
}

func ssh(name string, k *gittest.Key) v1alpha1.Signer {
	return v1alpha1.Signer{Name: name, Kind: "ssh", PublicKey: k.Public}
}

const versionRaised = "-version: 3 # raise it at each change\n+version: 4 # raise it at each change\n"

// TestTrustEditsChangeNothingElse looks at the difference that git shows.
func TestTrustEditsChangeNothingElse(t *testing.T) {
	for name, step := range map[string]struct {
		edit func(*trustCase, *repository.Trust) error
		want func(*trustCase) string
	}{
		"add": {
			func(c *trustCase, trust *repository.Trust) error { return trust.Add(ssh("carol", c.carol)) },
			func(c *trustCase) string {
				return versionRaised + "+  - name: carol\n+    kind: ssh\n+    publicKey: |\n+      " + c.carol.Public + "\n"
			},
		},
		"remove": {
			func(_ *trustCase, trust *repository.Trust) error {
				if err := trust.RemoveRule(1); err != nil {
					return err
				}
				return trust.Remove("bob")
			},
			func(c *trustCase) string {
				return versionRaised +
					"-  # Bob helps.\n-  # He is away in May.\n-  - name: bob\n-    kind: ssh\n-    publicKey: |\n-      " + c.bob.Public + "\n" +
					"-  - signers: [alice, bob]\n+  - signers: [alice]\n-  # Only apps.\n-  - signers:\n-      - bob\n-    paths:\n-      - apps/\n"
			},
		},
		"rotate": {
			func(c *trustCase, trust *repository.Trust) error { return trust.Rotate("bob", ssh("", c.carol)) },
			func(c *trustCase) string {
				return versionRaised + "-      " + c.bob.Public + "\n+      " + c.carol.Public + "\n"
			},
		},
		"rule added": {
			func(_ *trustCase, trust *repository.Trust) error {
				return trust.AddRule(v1alpha1.Rule{Signers: []string{"alice", "bob"}, Paths: []string{"clusters/*/machines/**"}, Threshold: 2})
			},
			func(*trustCase) string {
				return versionRaised + "+  - signers: [alice, bob]\n+    paths: [\"clusters/*/machines/**\"]\n+    threshold: 2\n"
			},
		},
		"rule replaced": {
			func(_ *trustCase, trust *repository.Trust) error {
				return trust.SetRule(0, v1alpha1.Rule{Signers: []string{"alice"}, Paths: []string{"**"}, Threshold: 1})
			},
			func(*trustCase) string {
				return versionRaised + "-  - signers: [alice, bob]\n+  - signers: [alice]\n"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTrustCase(t)
			trust := c.open()
			if err := step.edit(c, trust); err != nil {
				t.Fatal(err)
			}
			if before := c.text(); !strings.Contains(before, "version: 3") {
				t.Error("it was written before Save")
			}
			if got, want := c.changed(trust), step.want(c); got != want {
				t.Errorf("the difference is\n%s\nwant\n%s", got, want)
			}
			if len(trust.Changes()) == 0 {
				t.Error("no change is reported")
			}
		})
	}
}

func TestTrustRefuses(t *testing.T) {
	c := newTrustCase(t)
	for name, step := range map[string]struct {
		edit func(*repository.Trust) error
		want string
	}{
		"name that is taken":    {func(trust *repository.Trust) error { return trust.Add(ssh("bob", c.carol)) }, "is listed already"},
		"key that is taken":     {func(trust *repository.Trust) error { return trust.Add(ssh("carol", c.bob)) }, "have the same key"},
		"nobody":                {func(trust *repository.Trust) error { return trust.Remove("dave") }, "lists alice, bob"},
		"signer a rule needs":   {func(trust *repository.Trust) error { return trust.Remove("bob") }, "rule 1 (apps/)"},
		"same key again":        {func(trust *repository.Trust) error { return trust.Rotate("bob", ssh("", c.bob)) }, "this key already"},
		"rule that is not":      {func(trust *repository.Trust) error { return trust.RemoveRule(2) }, "no rule 2"},
		"rule without a signer": {func(trust *repository.Trust) error { return trust.AddRule(v1alpha1.Rule{Paths: []string{"x"}}) }, "name only 0"},
		"unknown signer": {func(trust *repository.Trust) error {
			return trust.AddRule(v1alpha1.Rule{Signers: []string{"dave"}, Paths: []string{"x"}})
		}, `"dave" is not one of the signers`},
		"two of one": {func(trust *repository.Trust) error {
			return trust.SetRule(1, v1alpha1.Rule{Signers: []string{"bob"}, Paths: []string{"apps/"}, Threshold: 2})
		}, "would need 2 signers and name only 1"},
		"nobody for the root": {func(trust *repository.Trust) error { return trust.RemoveRule(0) }, "nobody could change it ever again"},
		"last rule": {func(trust *repository.Trust) error {
			if err := trust.RemoveRule(1); err != nil {
				return err
			}
			return trust.RemoveRule(0)
		}, "last rule"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := step.edit(c.open()); err == nil || !strings.Contains(err.Error(), step.want) {
				t.Errorf("error %v, want %q", err, step.want)
			}
		})
	}
	t.Run("last signer", func(t *testing.T) {
		r := gittest.NewRepo(t)
		r.Root(1, "", c.alice)
		trust, err := repository.OpenTrust(r.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := trust.Remove("alice"); err == nil || !strings.Contains(err.Error(), "last signer") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("flow style", func(t *testing.T) {
		r := gittest.NewRepo(t)
		r.Write("trust/root.yaml", "{apiVersion: bothy.dev/v1alpha1, kind: TrustRoot, version: 1, signers: [{name: a, kind: ssh, publicKey: "+c.alice.Public+"}]}\n")
		trust, err := repository.OpenTrust(r.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := trust.Add(ssh("bob", c.bob)); err == nil || !strings.Contains(err.Error(), "one item below the other") {
			t.Errorf("error %v", err)
		}
	})
}

func (c *trustCase) signWith(k *gittest.Key) {
	c.Git("config", "gpg.format", "ssh")
	c.Git("config", "user.signingkey", k.Private)
}

func TestTrustCommit(t *testing.T) {
	c := newTrustCase(t)
	c.signWith(c.alice)
	trust := c.open()
	if err := trust.Add(ssh("carol", c.carol)); err != nil {
		t.Fatal(err)
	}
	c.Write("unrelated", "staged by the user\n")
	id, step, err := trust.Commit(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	if id != c.Head() || step.Signer.Signer != "alice" || step.NewRootVersion != 4 || step.Files != 2 {
		t.Errorf("commit %s, step %+v", id, step)
	}
	if subject := c.Git("log", "-1", "--format=%s"); subject != "trust: add signer carol\n" {
		t.Errorf("subject %q", subject)
	}
	if allowed := c.Git("show", "HEAD:trust/allowed_signers"); !strings.Contains(allowed, "carol namespaces=\"git\" ssh-ed25519 ") {
		t.Errorf("git would not know carol: %s", allowed)
	}
	if v, _ := verify(t, repository.VerifyOptions{Repository: c.Dir}); !v.Accepted || v.RootVersion != 4 {
		t.Errorf("verdict %+v", v)
	}

	t.Run("taken back if no machine would follow", func(t *testing.T) {
		head := c.Head()
		c.signWith(c.carol) // listed now, but no rule names her
		trust := c.open()
		if err := trust.SetRule(0, v1alpha1.Rule{Signers: []string{"carol"}, Paths: []string{"**"}, Threshold: 1}); err != nil {
			t.Fatal(err)
		}
		_, _, err := trust.Commit(context.Background(), "")
		if err == nil || !strings.Contains(err.Error(), "taken back") || !strings.Contains(err.Error(), `which "carol" may not change`) {
			t.Fatalf("error %v", err)
		}
		if c.Head() != head || !strings.Contains(c.text(), "carol") {
			t.Error("the commit is still there, or the change is not")
		}
	})
}

func TestSignerSources(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	alice, bob, gina := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "bob"), gittest.PGPKey(t, "gina", "0")
	t.Setenv("GNUPGHOME", gina.Home())
	corp := x509test.NewAuthority(t, "corp")
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := alice.Public + "\nssh-dss AAAAB3NzaC1kc3M= old\n" + bob.Public + "\n"
	for name, c := range map[string]struct {
		source repository.SignerSource
		names  string
		kind   string
	}{
		"public key":     {repository.SignerSource{SSHKey: alice.Private + ".pub"}, "x", "ssh"},
		"private key":    {repository.SignerSource{SSHKey: alice.Private}, "x", "ssh"},
		"standard input": {repository.SignerSource{SSHKey: "-", Stdin: strings.NewReader(bob.Public)}, "x", "ssh"},
		"list of keys":   {repository.SignerSource{Keys: file("x.keys", keys)}, "x x-2", "ssh"},
		"key ring":       {repository.SignerSource{OpenPGP: "gina@example.com"}, "x", "openpgp"},
		"armored file":   {repository.SignerSource{OpenPGP: file("gina.asc", gina.Public)}, "x", "openpgp"},
		"authority":      {repository.SignerSource{CertificateAuthorities: file("ca.pem", corp.PEM()), Subject: "a@corp"}, "x", "x509"},
		"Sigstore": {repository.SignerSource{
			TrustedRoot: file("root.json", corp.TrustedRoot(t, x509test.NewWitness(t))), Subject: "a@corp", Issuer: "https://i",
		}, "x", "x509"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := c.source.Signers(context.Background(), "x")
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range list {
				names = append(names, s.Name)
				if s.Kind != c.kind {
					t.Errorf("kind %q", s.Kind)
				}
			}
			if got := strings.Join(names, " "); got != c.names {
				t.Errorf("names %q, want %q", got, c.names)
			}
			r := gittest.NewRepo(t)
			r.Root(1, "", gittest.SSHKey(t, "owner"))
			trust, err := repository.OpenTrust(r.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := trust.Add(list...); err != nil {
				t.Fatalf("add: %v", err)
			}
			sum, err := repository.SummarizeTrust(trust.Root, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if last := sum.Signers[len(sum.Signers)-1]; len(last.Fingerprints) == 0 || last.State != "valid" || !last.ChangesTrust || last.Validity() == "" {
				t.Errorf("summary %+v", last)
			}
		})
	}
	for name, c := range map[string]struct {
		source repository.SignerSource
		want   string
	}{
		"none":              {repository.SignerSource{}, "exactly one"},
		"two":               {repository.SignerSource{SSHKey: "a", OpenPGP: "b"}, "exactly one"},
		"subject for ssh":   {repository.SignerSource{SSHKey: alice.Private, Subject: "a"}, "for x509 signers"},
		"missing file":      {repository.SignerSource{SSHKey: filepath.Join(dir, "none")}, "no such file"},
		"no usable key":     {repository.SignerSource{Keys: file("dss.keys", "ssh-dss AAAA old\n")}, "no SSH key that may sign"},
		"Sigstore, no name": {repository.SignerSource{TrustedRoot: filepath.Join(dir, "root.json")}, "subject and issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.source.Signers(context.Background(), "x"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
