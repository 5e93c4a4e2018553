package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

// Options say what to make.
type Options struct {
	// Dir is the work tree to make; it must not exist or be empty.
	Dir string
	// Template holds the files of the first commit.
	Template fs.FS
	// Key signs it and becomes the only signer of the trust root.
	Key Key
	// SignerName is what status calls the signer. Default: the user name that
	// git is configured with, made fit for a name, or "owner".
	SignerName string
	// Branch is the branch to make. Default main.
	Branch string
	// Path is the site's directory in the template. Default clusters/default.
	Path string
	// Bare, if set, is a bare repository to make and push to; the site fetches
	// from it. Otherwise the site fetches from Dir.
	Bare string
}

// Result says what was made.
type Result struct {
	// Dir is the work tree, Bare the bare repository or "", URL what the site
	// fetches.
	Dir, Bare, URL string
	Branch, Path   string
	// Commit is the first commit.
	Commit string
	Signer v1alpha1.Signer
	// Fingerprint is the signer's key as status shows it.
	Fingerprint string
	Root        *v1alpha1.TrustRoot
}

// BootConfig returns the part of a boot configuration that follows from the
// repository.
func (r *Result) BootConfig() *v1alpha1.BootConfig {
	return &v1alpha1.BootConfig{
		TypeMeta:   v1alpha1.TypeMeta{APIVersion: v1alpha1.GroupVersion, Kind: "BootConfig"},
		Repository: v1alpha1.RepositorySpec{URL: r.URL, Branch: r.Branch, Path: r.Path},
		Trust:      v1alpha1.BootTrust{Root: r.Root},
	}
}

const (
	rootFile           = "trust/root.yaml"
	allowedSignersFile = "trust/allowed_signers"
)

// Init makes the repository. If it fails half-way, what it made is removed,
// except for a generated key.
func Init(ctx context.Context, o Options) (result *Result, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := needGit(ctx); err != nil {
		return nil, err
	}
	for _, dir := range []string{o.Dir, o.Bare} {
		if dir != "" {
			if err := vacant(dir); err != nil {
				return nil, err
			}
		}
	}
	key, err := o.Key.resolve(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The error that led here says more than a failure to tidy up.
			_ = os.RemoveAll(o.Dir)
			if o.Bare != "" {
				_ = os.RemoveAll(o.Bare)
			}
		}
	}()
	r := &Result{Dir: o.Dir, Bare: o.Bare, URL: "file://" + o.Dir, Branch: o.Branch, Path: o.Path}
	if o.Bare != "" {
		r.URL = "file://" + o.Bare
	}
	w := &worktree{ctx: ctx, dir: o.Dir}
	if err := w.create(o, key); err != nil {
		return nil, err
	}
	if err := r.trust(w, key, o.SignerName); err != nil {
		return nil, err
	}
	if r.Commit, err = w.commit("Create the site"); err != nil {
		return nil, err
	}
	if err := r.check(w); err != nil {
		return nil, err
	}
	if o.Bare != "" {
		err = w.publish(o.Bare, o.Branch)
	}
	return r, err
}

func (o *Options) complete() error {
	if o.Dir == "" || o.Template == nil {
		return errors.New("repository: a directory and a template are needed")
	}
	if o.Branch == "" {
		o.Branch = "main"
	}
	if o.Path == "" {
		o.Path = "clusters/default"
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if o.Bare != "" {
		if o.Bare, err = filepath.Abs(o.Bare); err != nil {
			return err
		}
		if inside(o.Bare, o.Dir) || inside(o.Dir, o.Bare) {
			return fmt.Errorf("%s and %s lie within each other; choose separate directories", o.Dir, o.Bare)
		}
	}
	if info, err := fs.Stat(o.Template, o.Path); err != nil || !info.IsDir() {
		return fmt.Errorf("the template has no directory %s", o.Path)
	}
	return nil
}

func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// trust writes the trust root and the file with which git verifies locally.
func (r *Result) trust(w *worktree, key *signingKey, name string) error {
	if name == "" {
		name = w.signerName()
	}
	r.Signer = key.signer(name)
	_, err := signers.NewKeyring([]v1alpha1.Signer{r.Signer})
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	text := initialRoot(r.Signer)
	if err := w.write(rootFile, text); err != nil {
		return err
	}
	if r.Root, err = v1alpha1.DecodeTrustRoot(rootFile, []byte(text)); err != nil {
		return err
	}
	if key.kind == signers.KindSSH {
		return w.write(allowedSignersFile, allowedSigner(name, key.public))
	}
	return nil
}

// initialRoot is a trust root with one signer, written for people to edit.
func initialRoot(s v1alpha1.Signer) string {
	var b strings.Builder
	b.WriteString("# Who may sign commits. A change of this file is verified with the file it\n# replaces, and version never decreases. See README.md.\n")
	fmt.Fprintf(&b, "apiVersion: %s\nkind: TrustRoot\nversion: 1\nsigners:\n", v1alpha1.GroupVersion)
	fmt.Fprintf(&b, "  - name: %q\n    kind: %s\n    publicKey: |\n", s.Name, s.Kind)
	for line := range strings.SplitSeq(s.PublicKey, "\n") {
		b.WriteString(strings.TrimRight("      "+line, " ") + "\n")
	}
	return b.String()
}

// allowedSigner is a line for git's gpg.ssh.allowedSignersFile.
func allowedSigner(name, public string) string {
	fields := strings.Fields(public)
	return fmt.Sprintf("%s namespaces=\"git\" %s\n", name, strings.Join(fields[:min(2, len(fields))], " "))
}

// check reads the commit back the way a site will.
func (r *Result) check(w *worktree) error {
	raw, err := w.git("cat-file", "commit", r.Commit)
	if err != nil {
		return err
	}
	ring, err := signers.NewKeyring(r.Root.Signers)
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	c, err := signers.ParseCommit([]byte(raw))
	if err != nil {
		return fmt.Errorf("check the signature: commit %w", err)
	}
	who, err := ring.Verify(c, c.CommitTime)
	if err != nil {
		return fmt.Errorf("check the signature: the commit %w", err)
	}
	r.Fingerprint = who.Fingerprint
	return nil
}
