package repository_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/repository"
)

// verify runs Verify and collects the steps.
func verify(t *testing.T, o repository.VerifyOptions) (*repository.Verification, []acceptance.Step) {
	t.Helper()
	var steps []acceptance.Step
	o.Report = func(s acceptance.Step) { steps = append(steps, s) }
	v, err := repository.Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v, steps
}

const verifyRules = `- signers: [alice]
  paths: ["**"]
- signers: [alice, bob]
  paths: ["clusters/"]
  threshold: 2
- signers: [bob]
  paths: ["apps/"]
`

func TestVerifyExplainsEachCommit(t *testing.T) {
	alice, bob := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "bob")
	r := gittest.NewRepo(t)
	r.Write("README", "before\n")
	r.Commit(nil, "long before")
	r.Root(1, verifyRules, alice, bob)
	first := r.Commit(alice, "first")
	r.Write("apps/x", "1\n")
	second := r.Commit(bob, "an app")
	r.Git("checkout", "-q", "-b", "work")
	r.Write("clusters/c", "1\n")
	r.Commit(alice, "proposal")
	r.Git("checkout", "-q", "main")
	merge := r.Merge(bob, "work")
	r.Root(2, verifyRules, alice, bob)
	r.Remove("README")
	r.Write("apps/x", "2\n")
	last := r.Commit(alice, "new root")

	v, steps := verify(t, repository.VerifyOptions{Repository: filepath.Join(r.Dir, "apps")}) // any directory of it
	if !v.Accepted || v.Commit != last || v.Branch != "main" || v.Commits != 4 || v.RootVersion != 2 || v.Signer.Signer != "alice" || !strings.Contains(v.Basis, "begins with (version 1)") {
		t.Fatalf("verdict %+v", v)
	}
	if len(steps) != 4 {
		t.Fatalf("%d steps", len(steps))
	}
	if s := steps[0]; s.Commit != first || !s.Anchor || s.Signer.Signer != "alice" || s.Files != 2 {
		t.Errorf("first step %+v", s)
	}
	if s := steps[1]; s.Commit != second || s.Anchor || s.Signer.Signer != "bob" || len(s.Rules) != 1 || s.Rules[0].Rule != 2 || s.Files != 1 || s.Changes[0] != (acceptance.Change{Path: "apps/x", Action: acceptance.Changed}) {
		t.Errorf("second step %+v", s)
	}
	if s := steps[2]; s.Commit != merge || s.Signer.Signer != "bob" || len(s.Rules) != 1 || s.Rules[0].Threshold != 2 || len(s.Rules[0].CoSigners) != 1 || s.Rules[0].CoSigners[0] != "alice" {
		t.Errorf("merge %+v", s)
	}
	if s := steps[3]; s.Commit != last || s.RootVersion != 1 || s.NewRootVersion != 2 || s.Files != 3 || s.Changes[0].Action != acceptance.Deleted {
		t.Errorf("last step %+v", s)
	}

	t.Run("from a commit", func(t *testing.T) {
		v, steps := verify(t, repository.VerifyOptions{Repository: r.Dir, From: second[:9]})
		if !v.Accepted || len(steps) != 2 || steps[0].Commit != merge {
			t.Errorf("verdict %+v, %d steps", v, len(steps))
		}
	})
	t.Run("from a name", func(t *testing.T) {
		v, steps := verify(t, repository.VerifyOptions{Repository: r.Dir, From: "main~1"})
		if !v.Accepted || len(steps) != 1 || v.Basis != "commit "+merge {
			t.Errorf("verdict %+v, %d steps", v, len(steps))
		}
	})
	t.Run("as a machine that boots", func(t *testing.T) {
		root, err := v1alpha1.DecodeTrustRoot("boot", []byte(gittest.RootYAML(1, verifyRules, alice, bob)))
		if err != nil {
			t.Fatal(err)
		}
		v, _ := verify(t, repository.VerifyOptions{Repository: r.Dir, TrustRoot: root})
		if !v.Accepted || v.Commit != last {
			t.Errorf("verdict %+v", v)
		}
		root.Version = 7
		v, _ = verify(t, repository.VerifyOptions{Repository: r.Dir, TrustRoot: root})
		if v.Accepted || v.Refusal.Rule != acceptance.RuleAnchor {
			t.Errorf("verdict %+v", v)
		}
	})
	t.Run("a commit without a branch, as build servers have it", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "checkout")
		r.Git("clone", "-q", r.Dir, dir)
		git(t, dir, "checkout", "-q", "--detach", merge)
		git(t, dir, "branch", "-D", "main")
		v, _ := verify(t, repository.VerifyOptions{Repository: dir})
		if !v.Accepted || v.Commit != merge {
			t.Errorf("verdict %+v", v)
		}
	})
	t.Run("linked work tree", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "linked")
		r.Git("worktree", "add", "-q", "-b", "older", dir, second)
		v, _ := verify(t, repository.VerifyOptions{Repository: dir})
		if !v.Accepted || v.Commit != second || v.Branch != "older" {
			t.Errorf("verdict %+v", v)
		}
	})
	t.Run("bare repository by URL", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "bare.git")
		r.Git("clone", "-q", "--bare", r.Dir, dir)
		v, _ := verify(t, repository.VerifyOptions{Repository: "file://" + dir, Branch: "main"})
		if !v.Accepted || v.Commit != last {
			t.Errorf("verdict %+v", v)
		}
	})
}

func TestVerifyRefuses(t *testing.T) {
	alice := gittest.SSHKey(t, "alice")
	r := gittest.NewRepo(t)
	r.Root(1, "", alice)
	first := r.Commit(alice, "first")
	r.Write("x", "1\n")
	bad := r.Commit(nil, "not signed")
	r.Commit(alice, "on top")

	v, steps := verify(t, repository.VerifyOptions{Repository: r.Dir})
	if v.Accepted || v.Refusal == nil || v.Refusal.Rule != acceptance.RuleSignature || v.Refusal.Offender != bad || v.Refusal.Remedy == "" || v.Commits != 1 {
		t.Fatalf("verdict %+v", v)
	}
	if s := steps[len(steps)-1]; s.Commit != bad || s.Refusal == nil || s.Refusal.Rule != v.Refusal.Rule || s.Signer != nil {
		t.Errorf("last step %+v", s)
	}
	t.Run("files that a check does not like", func(t *testing.T) {
		r.Git("reset", "-q", "--hard", first)
		r.Write("clusters/a", "1\n")
		r.Commit(alice, "clusters")
		check := func(_ context.Context, files fs.FS) error {
			if _, err := fs.Stat(files, "clusters/a"); err != nil {
				t.Errorf("the check does not see the files: %v", err)
			}
			return errors.New("clusters/a:1: what is this")
		}
		v, _ := verify(t, repository.VerifyOptions{Repository: r.Dir, Checks: []func(context.Context, fs.FS) error{check}})
		if v.Accepted || v.Refusal.Rule != acceptance.RuleCluster || !strings.Contains(v.Refusal.Problem, "what is this") || v.Signer == nil {
			t.Errorf("verdict %+v", v)
		}
	})
	t.Run("no trust root", func(t *testing.T) {
		r := gittest.NewRepo(t)
		r.Write("x", "1\n")
		r.Commit(alice, "first")
		v, _ := verify(t, repository.VerifyOptions{Repository: r.Dir})
		if v.Accepted || v.Refusal.Rule != acceptance.RuleTrustRoot || v.Refusal.Commit == "" {
			t.Errorf("verdict %+v", v)
		}
	})
}

func TestVerifyWithoutVerdict(t *testing.T) {
	alice := gittest.SSHKey(t, "alice")
	r := gittest.NewRepo(t)
	r.Root(1, "", alice)
	r.Commit(alice, "first")
	shallow := filepath.Join(t.TempDir(), "shallow")
	r.Commit(alice, "second")
	r.Git("clone", "-q", "--depth=1", "file://"+r.Dir, shallow)
	for name, c := range map[string]struct {
		options repository.VerifyOptions
		want    string
	}{
		"not a repository":      {repository.VerifyOptions{Repository: t.TempDir()}, "is not in a Git repository"},
		"branch that is not":    {repository.VerifyOptions{Repository: r.Dir, Branch: "other"}, "other"},
		"commit that is not":    {repository.VerifyOptions{Repository: r.Dir, From: "abcdef12"}, `no commit "abcdef12"`},
		"too short an id":       {repository.VerifyOptions{Repository: r.Dir, From: "a"}, "give the id"},
		"shallow clone":         {repository.VerifyOptions{Repository: shallow}, "shallow clone"},
		"commit and trust root": {repository.VerifyOptions{Repository: r.Dir, From: "abcd", TrustRoot: &v1alpha1.TrustRoot{}}, "not both"},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := repository.Verify(context.Background(), c.options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "bothy-verify-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) < time.Minute {
			t.Errorf("%s was left behind", dir)
		}
	}
}
