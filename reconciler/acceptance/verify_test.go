package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// site is a repository as a machine sees it: with a mirror and a boot
// configuration.
type site struct {
	*gittest.Repo
	t      *testing.T
	mirror *mirror.Mirror
	boot   v1alpha1.BootTrust
	now    time.Time
}

// newSite makes a repository whose first commit, by the first key, brings the
// trust root that the boot configuration names.
func newSite(t *testing.T, rules string, keys ...*gittest.Key) *site {
	t.Helper()
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Repo: gittest.NewRepo(t), t: t, mirror: m, now: time.Now()}
	s.Root(1, rules, keys...)
	s.Write("clusters/default/a.yaml", "a: 1\n")
	s.Commit(keys[0], "first")
	s.boot = v1alpha1.BootTrust{Root: s.root(1, rules, keys...)}
	return s
}

func (s *site) root(version int, rules string, keys ...*gittest.Key) *v1alpha1.TrustRoot {
	s.t.Helper()
	root, err := v1alpha1.DecodeTrustRoot("boot", []byte(gittest.RootYAML(version, rules, keys...)))
	if err != nil {
		s.t.Fatal(err)
	}
	return root
}

// verify fetches the branch and judges its tip; last is "" at first boot.
func (s *site) verify(last string) (*acceptance.Accepted, error) {
	s.t.Helper()
	tip, err := s.mirror.Fetch(context.Background(), mirror.Remote{URL: s.Dir, Branch: "main"})
	if err != nil {
		s.t.Fatal(err)
	}
	var point *acceptance.Point
	if last != "" {
		point = &acceptance.Point{Commit: last}
	}
	return acceptance.NewVerifier(s.mirror, func() time.Time { return s.now }).Verify(context.Background(), tip, point, s.boot)
}

func (s *site) accepts(last, signer string) string {
	s.t.Helper()
	got, err := s.verify(last)
	if err != nil {
		s.t.Fatalf("refused: %v", err)
	}
	if got.ID != s.Head() {
		s.t.Fatalf("accepted %s, the tip is %s", got.ID, s.Head())
	}
	if got.Signer == nil || got.Signer.Signer != signer {
		s.t.Fatalf("signer is %+v, want %s", got.Signer, signer)
	}
	return got.ID
}

func (s *site) refuses(last, rule, text string) *acceptance.Refusal {
	s.t.Helper()
	got, err := s.verify(last)
	if err == nil {
		s.t.Fatalf("commit %s was accepted, signed by %+v", got.ID, got.Signer)
	}
	var r *acceptance.Refusal
	if !errors.As(err, &r) {
		s.t.Fatalf("not a refusal: %v", err)
	}
	if r.Rule != rule || !strings.Contains(r.Problem, text) {
		s.t.Fatalf("refused by %q: %s\nwant rule %q with %q", r.Rule, r.Problem, rule, text)
	}
	if r.Commit == "" || r.Remedy == "" || r.At.IsZero() {
		s.t.Fatalf("incomplete refusal %+v", r)
	}
	return r
}

func TestFirstBoot(t *testing.T) {
	alice, mallory := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "mallory")

	t.Run("signed by the root in the boot configuration", func(t *testing.T) {
		newSite(t, "", alice).accepts("", "alice")
	})
	t.Run("unsigned history below a signed anchor", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Git("checkout", "-q", "--orphan", "other")
		s.Git("rm", "-r", "-q", "--cached", ".")
		s.Write("README", "old project\n")
		s.Commit(nil, "long before")
		s.Root(1, "", alice)
		s.Commit(alice, "adopt")
		s.Git("branch", "-M", "main")
		s.accepts("", "alice")
	})
	t.Run("unsigned tip", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Commit(nil, "no signature")
		r := s.refuses("", acceptance.RuleSignature, "is not signed")
		if r.Class != signers.Unsigned {
			t.Errorf("class %q", r.Class)
		}
	})
	t.Run("repository of somebody else with a copy of our root", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Commit(mallory, "mine now")
		s.Git("checkout", "-q", "--orphan", "other")
		s.Commit(mallory, "all of it")
		s.Git("branch", "-M", "main")
		s.refuses("", acceptance.RuleSignature, "does not list")
	})
	t.Run("repository with another root", func(t *testing.T) {
		s := newSite(t, "", mallory)
		s.boot.Root = s.root(1, "", alice)
		s.refuses("", acceptance.RuleAnchor, "does not chain to the boot configuration")
	})
	t.Run("root changed since, by a chain of trusted commits", func(t *testing.T) {
		s := newSite(t, "", alice)
		bob := gittest.SSHKey(t, "bob")
		s.Root(2, "", alice, bob)
		s.Commit(alice, "add bob")
		s.Root(3, "", bob)
		s.Commit(bob, "remove alice")
		s.Commit(bob, "go on")
		s.accepts("", "bob")
	})
	t.Run("limited signer presents a repository of their own", func(t *testing.T) {
		rules := "- signers: [alice]\n  paths: ['**']\n- signers: [dev]\n  paths: ['apps/**']\n"
		dev := gittest.SSHKey(t, "dev")
		s := newSite(t, rules, alice, dev)
		s.Git("checkout", "-q", "--orphan", "other")
		s.Write("clusters/default/a.yaml", "a: evil\n")
		s.Commit(dev, "a whole new world")
		s.Git("branch", "-M", "main")
		s.refuses("", acceptance.RuleAnchor, "may not change")
	})
	t.Run("limited signer on top of a full one", func(t *testing.T) {
		rules := "- signers: [alice]\n  paths: ['**']\n- signers: [dev]\n  paths: ['apps/**']\n"
		dev := gittest.SSHKey(t, "dev")
		s := newSite(t, rules, alice, dev)
		s.Write("apps/x.yaml", "x: 1\n")
		s.Commit(dev, "an app")
		s.accepts("", "dev")
	})
}

func TestNothingIsTrustedWithoutRoot(t *testing.T) {
	s := newSite(t, "", gittest.SSHKey(t, "alice"))
	s.boot = v1alpha1.BootTrust{}
	s.refuses("", acceptance.RuleTrustRoot, "no trust root")
}

func TestTrustNone(t *testing.T) {
	s := newSite(t, "", gittest.SSHKey(t, "alice"))
	s.boot = v1alpha1.BootTrust{None: true}
	s.Commit(nil, "unsigned")
	got, err := s.verify("")
	if err != nil || got.Signer != nil || got.Root != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	s.Git("checkout", "-q", "--orphan", "other")
	s.Commit(nil, "another history")
	s.Git("branch", "-M", "main")
	s.refuses(got.ID, acceptance.RuleDescent, "does not descend")
}

func TestSignatures(t *testing.T) {
	alice, bob, mallory := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "bob"), gittest.SSHKey(t, "mallory")

	t.Run("legitimate", func(t *testing.T) {
		s := newSite(t, "", alice, bob)
		a := s.accepts("", "alice")
		s.Write("clusters/default/b.yaml", "b: 1\n")
		s.Commit(bob, "b")
		s.accepts(a, "bob")
	})
	t.Run("unsigned commit below a signed tip", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		bad := s.Commit(nil, "sneaked in")
		s.Commit(alice, "innocent")
		r := s.refuses(a, acceptance.RuleSignature, "is not signed")
		if r.Offender != bad || r.Commit != s.Head() {
			t.Errorf("offender %s, commit %s", r.Offender, r.Commit)
		}
	})
	t.Run("unknown key", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		s.Commit(mallory, "hello")
		if r := s.refuses(a, acceptance.RuleSignature, "does not list"); r.Class != signers.UnknownKey {
			t.Errorf("class %q", r.Class)
		}
	})
	t.Run("removed key", func(t *testing.T) {
		s := newSite(t, "", alice, bob)
		a := s.accepts("", "alice")
		s.Root(2, "", alice)
		s.Commit(alice, "remove bob")
		b := s.accepts(a, "alice")
		s.Commit(bob, "still here?")
		s.refuses(b, acceptance.RuleSignature, "does not list")
		s.refuses(a, acceptance.RuleSignature, "does not list")
	})
	t.Run("expired key", func(t *testing.T) {
		s := newSite(t, "", alice)
		until := time.Now().Add(time.Hour)
		s.Root(2, "", alice)
		s.Write("trust/root.yaml", strings.Replace(gittest.RootYAML(2, "", alice), "  kind: ssh\n", fmt.Sprintf("  kind: ssh\n  notAfter: %s\n", until.UTC().Format(time.RFC3339)), 1))
		s.Commit(alice, "limit alice")
		b := s.accepts("", "alice")
		s.Commit(alice, "in time")
		s.accepts(b, "alice")
		s.now = until.Add(time.Minute)
		if r := s.refuses(b, acceptance.RuleSignature, "no longer valid now"); r.Class != signers.Expired {
			t.Errorf("class %q", r.Class)
		}
	})
	t.Run("commit dated after the key's end", func(t *testing.T) {
		s := newSite(t, "", alice)
		until := time.Now().Add(time.Hour)
		s.Write("trust/root.yaml", strings.Replace(gittest.RootYAML(2, "", alice), "  kind: ssh\n", fmt.Sprintf("  kind: ssh\n  notAfter: %s\n", until.UTC().Format(time.RFC3339)), 1))
		b := s.Commit(alice, "limit alice")
		s.Env("GIT_COMMITTER_DATE=" + until.Add(time.Hour).Format(time.RFC3339))
		s.Commit(alice, "from the future")
		s.refuses(b, acceptance.RuleSignature, "at the commit's time")
	})
	t.Run("signature of another commit", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		signed := string(s.Raw(s.Commit(alice, "signed")))
		s.Git("reset", "-q", "--hard", a)
		s.Write("clusters/default/a.yaml", "a: evil\n")
		forged := string(s.Raw(s.Commit(nil, "forged")))
		_, rest, _ := strings.Cut(signed, "gpgsig ")
		signature, _, _ := strings.Cut(rest, "\n\n")
		forged = strings.Replace(forged, "\n\n", "\ngpgsig "+signature+"\n\n", 1)
		s.Git("reset", "-q", "--hard", s.Store("commit", []byte(forged)))
		if r := s.refuses(a, acceptance.RuleSignature, "not made for this commit"); r.Class != signers.Mismatch {
			t.Errorf("class %q", r.Class)
		}
	})
	t.Run("signature for another namespace", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		id := signWith(t, s, alice, "file")
		s.Git("reset", "-q", "--hard", id)
		if r := s.refuses(a, acceptance.RuleSignature, `made for "file"`); r.Class != signers.WrongNamespace {
			t.Errorf("class %q", r.Class)
		}
		s.Git("reset", "-q", "--hard", a)
		s.Git("reset", "-q", "--hard", signWith(t, s, alice, "git"))
		s.accepts(a, "alice")
	})
	t.Run("same content, other committer", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		raw := string(s.Raw(s.Commit(alice, "signed")))
		s.Git("reset", "-q", "--hard", s.Store("commit", []byte(strings.Replace(raw, "committer Test", "committer Tess", 1))))
		s.refuses(a, acceptance.RuleSignature, "not made for this commit")
	})
	t.Run("two signatures", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		raw := string(s.Raw(s.Commit(alice, "signed")))
		head, message, _ := strings.Cut(raw, "\n\n")
		_, signature, _ := strings.Cut(head, "gpgsig ")
		s.Git("update-ref", "refs/heads/main", s.Store("commit", []byte(head+"\ngpgsig "+signature+"\n\n"+message)))
		s.refuses(a, acceptance.RuleSignature, "two signatures")
	})
}

// signWith makes a commit on HEAD signed by ssh-keygen for a namespace.
func signWith(t *testing.T, s *site, key *gittest.Key, namespace string) string {
	t.Helper()
	raw := string(s.Raw(s.Commit(nil, "for "+namespace)))
	armor := gittest.SSHSign(t, key, namespace, raw)
	header := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(armor), "\n", "\n ")
	return s.Store("commit", []byte(strings.Replace(raw, "\n\n", "\n"+header+"\n\n", 1)))
}

func TestOpenPGP(t *testing.T) {
	gpg, mallory := gittest.PGPKey(t, "gina", "0"), gittest.PGPKey(t, "mallory", "0")

	t.Run("primary key and subkey", func(t *testing.T) {
		s := newSite(t, "", gpg)
		a := s.accepts("", "gina")
		gpg.GPG(t, "--quick-add-key", gpg.Private, "ed25519", "sign", "1y")
		gpg.Export(t)
		s.Root(2, "", gpg)
		b := s.Commit(gpg, "export with a subkey")
		// gpg signs with the newest subkey from here on, which the root before
		// does not know.
		s.refuses(a, acceptance.RuleSignature, "does not list")
		s.boot.Root = s.root(2, "", gpg)
		s.accepts("", "gina")
		s.Commit(gpg, "by the subkey")
		s.accepts(b, "gina")
	})
	t.Run("unknown key", func(t *testing.T) {
		s := newSite(t, "", gpg)
		a := s.Head()
		s.Commit(mallory, "hello")
		s.refuses(a, acceptance.RuleSignature, "does not list")
	})
	t.Run("expired key", func(t *testing.T) {
		short := gittest.PGPKey(t, "short", "1d")
		s := newSite(t, "", short)
		a := s.accepts("", "short")
		s.Commit(short, "in time")
		s.accepts(a, "short")
		s.now = time.Now().Add(48 * time.Hour)
		if r := s.refuses(a, acceptance.RuleSignature, "has expired"); r.Class != signers.Expired {
			t.Errorf("class %q", r.Class)
		}
	})
	t.Run("revoked key", func(t *testing.T) {
		lost := gittest.PGPKey(t, "lost", "0")
		s := newSite(t, "", lost)
		a := s.accepts("", "lost")
		signed := s.Commit(lost, "before anybody knew")
		s.accepts(a, "lost")
		lost.Revoke(t)
		ring, err := signers.NewKeyring(s.root(1, "", lost).Signers)
		if err != nil {
			t.Fatal(err)
		}
		c, err := signers.ParseCommit(s.Raw(signed))
		if err != nil {
			t.Fatal(err)
		}
		var bad *signers.Error
		if _, err := ring.Verify(c, time.Now()); !errors.As(err, &bad) || bad.Class != signers.Revoked {
			t.Fatalf("error %v, want a revoked key", err)
		}
	})
	t.Run("tampered", func(t *testing.T) {
		s := newSite(t, "", gpg)
		a := s.Head()
		raw := string(s.Raw(s.Commit(gpg, "signed")))
		s.Git("reset", "-q", "--hard", s.Store("commit", []byte(strings.Replace(raw, "\nsigned", "\nsealed", 1))))
		s.refuses(a, acceptance.RuleSignature, "not made for this commit")
	})
}

func TestDescent(t *testing.T) {
	alice := gittest.SSHKey(t, "alice")

	t.Run("old signed commit pushed again", func(t *testing.T) {
		s := newSite(t, "", alice)
		old := s.Head()
		s.Commit(alice, "fix a hole")
		a := s.accepts("", "alice")
		s.Git("reset", "-q", "--hard", old)
		s.refuses(a, acceptance.RuleDescent, "is older than the accepted")
	})
	t.Run("revert as a new commit", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Write("clusters/default/a.yaml", "a: 2\n")
		s.Commit(alice, "change")
		a := s.accepts("", "alice")
		s.Git(append(alice.SignArgs(), "revert", "--no-edit", "HEAD")...)
		s.accepts(a, "alice")
	})
	t.Run("force-push to a sibling", func(t *testing.T) {
		s := newSite(t, "", alice)
		base := s.Head()
		s.Commit(alice, "one")
		a := s.accepts("", "alice")
		s.Git("reset", "-q", "--hard", base)
		s.Commit(alice, "other")
		s.refuses(a, acceptance.RuleDescent, "does not descend")
	})
	t.Run("branch swapped to another signed repository", func(t *testing.T) {
		a := newSite(t, "", alice).Commit(alice, "here")
		other := newSite(t, "", alice)
		other.Write("x", "different\n")
		other.Commit(alice, "elsewhere")
		other.refuses(a, acceptance.RuleDescent, "does not descend")
	})
	t.Run("accepted commit merged as second parent", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Git("branch", "work")
		s.Commit(alice, "on main")
		a := s.accepts("", "alice")
		s.Git("checkout", "-q", "work")
		s.Write("w", "w\n")
		s.Commit(alice, "work")
		s.Merge(alice, "main")
		s.Git("branch", "-f", "main", "work")
		s.refuses(a, acceptance.RuleDescent, "only through a merge")
	})
	t.Run("side branch merged into main", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.accepts("", "alice")
		s.Git("checkout", "-q", "-b", "work")
		s.Write("w", "w\n")
		s.Commit(nil, "work, not signed: the merge vouches for it")
		s.Git("checkout", "-q", "main")
		s.Merge(alice, "work")
		s.accepts(a, "alice")
	})
}

func TestTrustRootChanges(t *testing.T) {
	alice, bob := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "bob")

	t.Run("signed by the root it replaces", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Root(2, "", bob)
		s.Commit(alice, "hand over")
		b := s.accepts(a, "alice")
		s.Commit(bob, "go on")
		s.accepts(b, "bob")
	})
	t.Run("signed only by the new root", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Root(2, "", alice, bob)
		s.Commit(bob, "let me in")
		s.refuses(a, acceptance.RuleSignature, "does not list")
	})
	t.Run("version decreases", func(t *testing.T) {
		s := newSite(t, "", alice)
		s.Root(5, "", alice)
		a := s.Commit(alice, "five")
		s.Root(4, "", alice, bob)
		s.Commit(alice, "four")
		s.refuses(a, acceptance.RuleRootVersion, "from 5 to 4")
	})
	t.Run("same version", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Root(1, "", alice, bob)
		s.Commit(alice, "without a new number")
		s.accepts(a, "alice")
	})
	t.Run("deleted", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Remove("trust/root.yaml")
		s.Commit(alice, "who needs it")
		s.refuses(a, acceptance.RuleTrustRoot, "has no trust/root.yaml")
	})
	t.Run("malformed", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Write("trust/root.yaml", gittest.RootYAML(2, "", alice)+"extra: true\n")
		s.Commit(alice, "typo")
		s.refuses(a, acceptance.RuleTrustRoot, "trust/root.yaml:9: extra: unknown field")
	})
	t.Run("key that cannot be read", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Write("trust/root.yaml", gittest.RootYAML(2, "", alice, &gittest.Key{Name: "carol", Kind: "ssh", Public: "ssh-ed25519 nonsense"}))
		s.Commit(alice, "add carol")
		s.refuses(a, acceptance.RuleTrustRoot, `signer "carol"`)
	})
	t.Run("symbolic link", func(t *testing.T) {
		s := newSite(t, "", alice)
		a := s.Head()
		s.Remove("trust/root.yaml")
		s.Link("trust/root.yaml", "../clusters/default/a.yaml")
		s.Commit(alice, "link")
		s.refuses(a, acceptance.RuleTrustRoot, "not a regular file")
	})
}

const rules = `- signers: [alice]
  paths: ["**"]
- signers: [dev]
  paths: ["apps/", "clusters/*/notes.txt"]
`

func TestPathRules(t *testing.T) {
	alice, dev := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "dev")

	for _, c := range []struct {
		name, path string
		ok         bool
	}{
		{"below a directory", "apps/web/deploy/x.yaml", true},
		{"one level of a pattern", "clusters/default/notes.txt", true},
		{"outside", "clusters/default/cluster.yaml", false},
		{"deeper than the pattern", "clusters/a/b/notes.txt", false},
		{"name with the same prefix", "apps-evil/x.yaml", false},
		{"trust root", "trust/images.yaml", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, rules, alice, dev)
			a := s.Head()
			s.Write(c.path, "x\n")
			s.Commit(dev, "change "+c.path)
			if c.ok {
				s.accepts(a, "dev")
				return
			}
			r := s.refuses(a, acceptance.RulePaths, "changes "+c.path)
			if !strings.Contains(r.Remedy, "alice") {
				t.Errorf("the remedy names nobody: %s", r.Remedy)
			}
		})
	}
	t.Run("deleting outside", func(t *testing.T) {
		s := newSite(t, rules, alice, dev)
		a := s.Head()
		s.Remove("clusters/default/a.yaml")
		s.Commit(dev, "gone")
		s.refuses(a, acceptance.RulePaths, "clusters/default/a.yaml")
	})
	t.Run("mode change outside", func(t *testing.T) {
		s := newSite(t, rules, alice, dev)
		a := s.Head()
		s.Git("update-index", "--chmod=+x", "clusters/default/a.yaml")
		s.Commit(dev, "executable")
		s.refuses(a, acceptance.RulePaths, "clusters/default/a.yaml")
	})
	t.Run("forbidden change smuggled in by a merge", func(t *testing.T) {
		s := newSite(t, rules, alice, dev)
		a := s.Head()
		s.Git("checkout", "-q", "-b", "work")
		s.Write("clusters/default/cluster.yaml", "x\n")
		s.Commit(dev, "outside")
		s.Git("checkout", "-q", "main")
		s.Merge(dev, "work")
		s.refuses(a, acceptance.RulePaths, "clusters/default/cluster.yaml")
	})
}

const twoEyes = `- signers: [alice, bob]
  paths: ["trust/**", "clusters/**"]
  threshold: 2
- signers: [alice, bob, dev]
  paths: ["apps/**"]
`

func TestThreshold(t *testing.T) {
	alice, bob, dev := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "bob"), gittest.SSHKey(t, "dev")

	// branch makes a commit by author on a side branch and returns to main.
	branch := func(s *site, author *gittest.Key, content string) {
		s.Git("checkout", "-q", "-b", "work")
		s.Write("clusters/default/a.yaml", content)
		s.Commit(author, "proposal")
		s.Git("checkout", "-q", "main")
	}
	t.Run("one signer alone", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.accepts("", "alice")
		s.Write("clusters/default/a.yaml", "a: 2\n")
		s.Commit(alice, "on my own")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
	t.Run("reviewed merge", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, bob, "a: 2\n")
		s.Merge(alice, "work")
		s.accepts(a, "alice")
	})
	t.Run("merging one's own work", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, alice, "a: 2\n")
		s.Merge(alice, "work")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
	t.Run("unsigned work", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, nil, "a: 2\n")
		s.Merge(alice, "work")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
	t.Run("work of somebody the rule does not name", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, dev, "a: 2\n")
		s.Merge(alice, "work")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
	t.Run("content changed in the merge itself", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, bob, "a: 2\n")
		s.Git("merge", "-q", "--no-ff", "--no-commit", "work")
		s.Write("clusters/default/a.yaml", "a: evil\n")
		s.Commit(alice, "merge, improved")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
	t.Run("second signer only touched another file", func(t *testing.T) {
		s := newSite(t, twoEyes, alice, bob, dev)
		a := s.Head()
		branch(s, alice, "a: 2\n")
		s.Git("checkout", "-q", "work")
		s.Write("apps/x", "x\n")
		s.Commit(bob, "unrelated")
		s.Git("checkout", "-q", "main")
		s.Merge(alice, "work")
		s.refuses(a, acceptance.RuleThreshold, "needs two signers")
	})
}

func TestMalformedTree(t *testing.T) {
	alice := gittest.SSHKey(t, "alice")
	s := newSite(t, "", alice)
	a := s.Head()
	blob := s.Store("blob", []byte("x"))
	id := make([]byte, 20)
	for i := range id {
		fmt.Sscanf(blob[2*i:2*i+2], "%02x", &id[i])
	}
	bad := s.Store("tree", append([]byte("100644 ..\x00"), id...))
	raw := string(s.Raw(s.Commit(nil, "escape")))
	tree, _, _ := strings.Cut(strings.TrimPrefix(raw, "tree "), "\n")
	raw = strings.Replace(raw, tree, bad, 1)
	armor := gittest.SSHSign(t, alice, "git", raw)
	header := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(armor), "\n", "\n ")
	s.Git("update-ref", "refs/heads/main", s.Store("commit", []byte(strings.Replace(raw, "\n\n", "\n"+header+"\n\n", 1))))
	s.refuses(a, acceptance.RuleTree, "git would not write")
}
