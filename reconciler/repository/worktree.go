package repository

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/bothy-os/bothy/internal/signers"
)

// worktree is the repository being made.
type worktree struct {
	ctx context.Context
	dir string
}

func (w *worktree) git(args ...string) (string, error) {
	return program(w.ctx, w.dir, "git", args...)
}

// create makes the work tree with the template's files and the settings that
// make a plain "git commit" sign.
func (w *worktree) create(o Options, key *signingKey) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return fmt.Errorf("target directory: %w", err)
	}
	if _, err := w.git("init", "-q", "--object-format=sha1", "-b", o.Branch); err != nil {
		return err
	}
	if err := copyTemplate(o.Template, w.dir); err != nil {
		return err
	}
	settings := [][2]string{
		{"commit.gpgsign", "true"},
		{"tag.gpgsign", "true"},
		{"user.signingkey", key.config},
		// Merges on the branch are signed commits of their own.
		{"merge.ff", "false"},
		{"pull.rebase", "true"},
	}
	if key.kind == signers.KindSSH {
		settings = append(settings, [2]string{"gpg.format", "ssh"}, [2]string{"gpg.ssh.allowedSignersFile", allowedSignersFile})
	} else {
		settings = append(settings, [2]string{"gpg.format", "openpgp"})
	}
	settings = append(settings, w.identity()...)
	for _, s := range settings {
		if _, err := w.git("config", s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// identity fills in who commits, in this repository only, where the user has
// not told git.
func (w *worktree) identity() [][2]string {
	var out [][2]string
	user := os.Getenv("SUDO_USER")
	if user == "" {
		user = os.Getenv("USER")
	}
	if user == "" {
		user = "owner"
	}
	if name, _ := w.git("config", "user.name"); strings.TrimSpace(name) == "" {
		out = append(out, [2]string{"user.name", user})
	}
	if mail, _ := w.git("config", "user.email"); strings.TrimSpace(mail) == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "localhost"
		}
		out = append(out, [2]string{"user.email", user + "@" + host})
	}
	return out
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9._@+-]+`)

// signerName makes a name for the trust root from the committer's.
func (w *worktree) signerName() string {
	name, _ := w.git("config", "user.name")
	name = strings.Trim(notInName.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "-"), "-.")
	if name == "" {
		return "owner"
	}
	return name
}

func (w *worktree) write(name, content string) error {
	full := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(content), 0o644)
}

// commit records everything in a signed commit.
func (w *worktree) commit(message string) (string, error) {
	if _, err := w.git("add", "-A"); err != nil {
		return "", err
	}
	if _, err := w.git("commit", "-q", "-S", "-m", message); err != nil {
		return "", fmt.Errorf("sign the first commit: %w", err)
	}
	id, err := w.git("rev-parse", "HEAD")
	return strings.TrimSpace(id), err
}

// publish makes the bare repository, the remote "origin", and pushes.
func (w *worktree) publish(bare, branch string) error {
	if _, err := program(w.ctx, "", "git", "init", "-q", "--bare", "--object-format=sha1", "-b", branch, bare); err != nil {
		return err
	}
	// Replacing commits stays possible: that is how one that the site refused is
	// signed after the fact. A site never follows a loss of accepted history.
	if _, err := program(w.ctx, bare, "git", "config", "receive.denyDeletes", "true"); err != nil {
		return err
	}
	if _, err := w.git("remote", "add", "origin", bare); err != nil {
		return err
	}
	_, err := w.git("push", "-q", "-u", "origin", branch)
	return err
}
