package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/tree"
)

// VerifyOptions say what to verify.
type VerifyOptions struct {
	// Repository is a work tree, a bare repository, or the URL of one.
	Repository string
	// Branch is the branch to verify. Default: what HEAD of a repository on this
	// machine stands for, else main.
	Branch string
	// CredentialsFile is for a URL that needs one.
	CredentialsFile string
	// From is the commit that counts as accepted: its id or the beginning of it,
	// or, in a repository on this machine, any name that git knows. What comes
	// after it is verified.
	From string
	// TrustRoot is the trust root of a boot configuration, in place of From: the
	// verdict is that of a machine which starts with it. If both are missing, the
	// whole history is verified by the trust root that it begins with.
	TrustRoot *v1alpha1.TrustRoot
	// Checks judge the files of an acceptable commit. An error refuses it.
	Checks []func(context.Context, fs.FS) error
	// Report explains each commit, oldest first; it may be nil.
	Report func(acceptance.Step)
	// Now is the time at which keys must be valid. Default time.Now.
	Now func() time.Time
	// Limits bound what the repository may cost; zero means defaults.
	Limits mirror.Limits
}

// Verification is the verdict on a repository. It can be encoded as JSON.
type Verification struct {
	Repository string `json:"repository"`
	Branch     string `json:"branch,omitempty"`
	// Commit is the newest commit, the one that was judged.
	Commit  string `json:"commit"`
	Subject string `json:"subject"`
	// Basis says what the chain of trust starts from.
	Basis string `json:"basis"`
	// Accepted says that the commit may become a cluster; else Refusal says why
	// not.
	Accepted bool                `json:"accepted"`
	Refusal  *acceptance.Refusal `json:"refusal,omitempty"`
	// Commits counts those that were judged and found good.
	Commits int `json:"commits"`
	// Signer signed Commit.
	Signer      *signers.Verified `json:"signer,omitempty"`
	RootVersion int64             `json:"rootVersion,omitempty"`
	// Took is in nanoseconds, fetching included.
	Took time.Duration `json:"took"`
}

// Verify judges a repository by the rules that a machine applies. A commit that
// is refused is no error but a Verification that says so; an error means that
// there is no verdict.
func Verify(ctx context.Context, o VerifyOptions) (*Verification, error) {
	started := time.Now()
	if o.From != "" && o.TrustRoot != nil {
		return nil, errors.New("verify: give the accepted commit or a trust root, not both")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	remote, err := o.remote(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bothy-verify-")
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory, nothing depends on it
	m, err := mirror.Open(filepath.Join(dir, "git"), o.Limits)
	if err != nil {
		return nil, err
	}
	got, err := m.FetchReference(ctx, remote)
	if err != nil {
		return nil, err
	}
	v := &Verification{Repository: o.Repository, Branch: remote.Branch, Commit: got.Commit}
	err = v.judge(ctx, m, o)
	v.Took = time.Since(started)
	var refusal *acceptance.Refusal
	if errors.As(err, &refusal) {
		v.refuse(refusal)
		return v, nil
	}
	return v, err
}

func (v *Verification) refuse(r *acceptance.Refusal) {
	if r.At.IsZero() {
		r.Commit, r.At = v.Commit, time.Now()
	}
	v.Refusal, v.Subject = r, r.Subject
}

func (v *Verification) judge(ctx context.Context, m *mirror.Mirror, o VerifyOptions) error {
	verifier := acceptance.NewVerifier(m, o.Now)
	verifier.OnStep(func(s acceptance.Step) {
		if s.Refusal == nil {
			v.Commits++
		}
		if o.Report != nil {
			o.Report(s)
		}
	})
	last, initial, err := v.basis(ctx, m, o)
	if err != nil {
		return err
	}
	if last == nil && o.TrustRoot == nil {
		verifier.FromOldest()
	}
	got, err := verifier.Verify(ctx, v.Commit, last, v1alpha1.BootTrust{Root: initial})
	if err != nil {
		return err
	}
	v.Subject, v.Signer, v.RootVersion = got.Commit.Subject(), got.Signer, got.Root.Version
	files := tree.New(m, got.Commit.Tree, got.Commit.CommitTime)
	for _, check := range o.Checks {
		if err := check(ctx, files); err != nil {
			return unfit(ctx, got, err)
		}
	}
	v.Accepted = true
	return nil
}

// unfit refuses a commit whose files a check does not like.
func unfit(ctx context.Context, got *acceptance.Accepted, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refusal *acceptance.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return &acceptance.Refusal{
		Commit: got.ID, Offender: got.ID, Subject: got.Commit.Subject(), Author: got.Commit.Author, At: time.Now(),
		Rule:    acceptance.RuleCluster,
		Problem: fmt.Sprintf("%s: %v", acceptance.Describe(got.ID, got.Commit), err),
		Remedy:  "correct the file and commit again",
	}
}

// basis finds what the chain of trust starts from.
func (v *Verification) basis(ctx context.Context, m *mirror.Mirror, o VerifyOptions) (*acceptance.Point, *v1alpha1.TrustRoot, error) {
	switch {
	case o.TrustRoot != nil:
		v.Basis = fmt.Sprintf("the given trust root (version %d)", o.TrustRoot.Version)
		return nil, o.TrustRoot, nil
	case o.From == "":
		root, err := acceptance.OldestRoot(ctx, m, v.Commit)
		if err == nil && root == nil {
			_, _, err = acceptance.RootAt(m, v.Commit) // says what is wrong with the newest
		}
		if root != nil {
			v.Basis = fmt.Sprintf("the trust root that the history begins with (version %d)", root.Version)
		}
		return nil, root, err
	}
	id, err := resolve(ctx, m, v.Commit, o.From)
	if err != nil {
		return nil, nil, err
	}
	v.Basis = "commit " + id
	root, _, err := acceptance.RootAt(m, id)
	return &acceptance.Point{Commit: id}, root, err
}

// resolve finds the commit whose id begins with prefix. One that is not on the
// first-parent path is given back if it is complete: the rule of descent
// explains it better.
func resolve(ctx context.Context, m *mirror.Mirror, tip, prefix string) (string, error) {
	prefix = strings.ToLower(prefix)
	if len(prefix) == 40 && m.Has(prefix) {
		return prefix, nil
	}
	var found []string
	err := acceptance.FirstParents(ctx, m, tip, func(id string, _ *signers.Commit) bool {
		if strings.HasPrefix(id, prefix) {
			found = append(found, id)
		}
		return len(found) < 2
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 0 || len(prefix) < 4:
		return "", fmt.Errorf("verify: the history of commit %.12s has no commit %q; give the id of a commit on the branch", tip, prefix)
	case len(found) > 1:
		return "", fmt.Errorf("verify: %q stands for several commits, such as %.12s and %.12s; give more of the id", prefix, found[0], found[1])
	}
	return found[0], nil
}

// remote finds out where to fetch from.
func (o *VerifyOptions) remote(ctx context.Context) (mirror.Remote, error) {
	r := mirror.Remote{URL: o.Repository, Branch: o.Branch, CredentialsFile: o.CredentialsFile}
	dir, local := strings.CutPrefix(o.Repository, "file://")
	if _, err := os.Stat(dir); err == nil {
		local = true
	}
	if !local {
		if r.Branch == "" {
			r.Branch = "main"
		}
		return r, nil
	}
	place, err := locate(dir)
	if err != nil {
		return r, err
	}
	r.URL = place.common
	o.From = named(ctx, dir, o.From)
	if r.Branch != "" {
		return r, nil
	}
	head, err := os.ReadFile(filepath.Join(place.own, "HEAD"))
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	text := strings.TrimSpace(string(head))
	if branch, ok := strings.CutPrefix(text, "ref: refs/heads/"); ok {
		r.Branch = branch
		return r, nil
	}
	// Many build servers check a single commit out, without a branch.
	r.Reference = mirror.Reference{Commit: text}
	return r, nil
}

// named turns a name such as origin/main into the id of its commit. What git
// does not know, or cannot say because it is not installed, stays as it is.
func named(ctx context.Context, dir, name string) string {
	if name == "" || strings.HasPrefix(name, "-") {
		return name
	}
	id, err := program(ctx, dir, "git", "rev-parse", "--verify", "--quiet", name+"^{commit}")
	if err != nil {
		return name
	}
	return strings.TrimSpace(id)
}

// gitDirs are the directories of a repository on this machine.
type gitDirs struct {
	own    string // has HEAD
	common string // has objects and branches; the same unless own is of a linked work tree
	top    string // the work tree; "" of a bare repository
}

// locate finds the repository that dir belongs to, as git does.
func locate(dir string) (gitDirs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return gitDirs{}, err
	}
	for at := dir; ; at = filepath.Dir(at) {
		switch info, err := os.Stat(filepath.Join(at, ".git")); {
		case err == nil && info.IsDir():
			return gitDirs{own: filepath.Join(at, ".git"), common: filepath.Join(at, ".git"), top: at}, nil
		case err == nil:
			return linked(at)
		}
		if isBare(at) {
			return gitDirs{own: at, common: at}, nil
		}
		if at == filepath.Dir(at) {
			return gitDirs{}, fmt.Errorf("%s is not in a Git repository; give its directory or URL", dir)
		}
	}
}

func isBare(dir string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// linked follows the .git file of a linked work tree.
func linked(top string) (gitDirs, error) {
	fail := func(err error) (gitDirs, error) {
		return gitDirs{}, fmt.Errorf("read the work tree %s: %w", top, err)
	}
	text, err := os.ReadFile(filepath.Join(top, ".git"))
	if err != nil {
		return fail(err)
	}
	own, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
	if !ok {
		return fail(errors.New(".git is neither a directory nor a link to one"))
	}
	own = relativeTo(top, own)
	common, err := os.ReadFile(filepath.Join(own, "commondir"))
	if errors.Is(err, fs.ErrNotExist) {
		return gitDirs{own: own, common: own, top: top}, nil // a submodule
	}
	if err != nil {
		return fail(err)
	}
	return gitDirs{own: own, common: relativeTo(own, strings.TrimSpace(string(common))), top: top}, nil
}

func relativeTo(base, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}
