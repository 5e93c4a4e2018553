package repository

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/tree"
)

// CheckoutOptions say what to read.
type CheckoutOptions struct {
	// Repository is a work tree, a bare repository, or the URL of one.
	Repository string
	// Branch is the branch to read. Default: what HEAD of a repository on this
	// machine stands for, else main.
	Branch string
	// CredentialsFile is for a URL that needs one.
	CredentialsFile string
}

// Checkout is the newest commit of a branch, in a directory of its own.
type Checkout struct {
	Commit string
	Branch string
	// Files are those of the commit.
	Files fs.FS

	dir, git string
}

// Open reads the newest commit of a repository with all of its history. The
// caller closes it.
func Open(ctx context.Context, o CheckoutOptions) (_ *Checkout, err error) {
	verify := VerifyOptions{Repository: o.Repository, Branch: o.Branch, CredentialsFile: o.CredentialsFile}
	remote, err := verify.remote(ctx)
	if err != nil {
		return nil, err
	}
	remote.Full = true
	dir, err := os.MkdirTemp("", "bothy-checkout-")
	if err != nil {
		return nil, fmt.Errorf("read the repository: %w", err)
	}
	c := &Checkout{Branch: remote.Branch, dir: dir, git: filepath.Join(dir, "git")}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	m, err := mirror.Open(c.git, mirror.Limits{})
	if err != nil {
		return nil, err
	}
	if c.Commit, err = m.Fetch(ctx, remote); err != nil {
		return nil, err
	}
	raw, err := m.Object(mirror.CommitObject, c.Commit)
	if err != nil {
		return nil, err
	}
	commit, err := signers.ParseCommit(raw)
	if err != nil {
		return nil, err
	}
	c.Files = tree.New(m, commit.Tree, commit.CommitTime)
	if c.Branch == "" {
		c.Branch = "main" // a commit that was checked out by its id
	}
	return c, nil
}

// Close removes the directory.
func (c *Checkout) Close() { _ = os.RemoveAll(c.dir) }

// Bundle writes the history of the commit as a Git bundle, see
// gitformat-bundle(5), without what commits lead to that a receiver has: then
// it can be read only where those are. The same history gives the same bytes,
// however the repository is packed.
func (c *Checkout) Bundle(ctx context.Context, w *bytes.Buffer, without ...string) error {
	fmt.Fprint(w, "# v2 git bundle\n")
	revisions := c.Commit + "\n"
	for _, id := range without {
		if _, err := program(ctx, c.git, "git", "merge-base", "--is-ancestor", id, c.Commit); err != nil {
			return fmt.Errorf("commit %.12s of the base is not in the history of %.12s: make a bundle without --base", id, c.Commit)
		}
		fmt.Fprintf(w, "-%s\n", id)
		revisions += "^" + id + "\n"
	}
	fmt.Fprintf(w, "%s refs/heads/%s\n\n", c.Commit, c.Branch)
	// One thread and no delta that is there already: what is made depends on the
	// objects alone.
	return pipe(ctx, c.git, strings.NewReader(revisions), w,
		"git", "-c", "pack.threads=1", "pack-objects", "--stdout", "--revs", "--thin", "--delta-base-offset", "--no-reuse-delta", "--no-reuse-object", "--quiet")
}
