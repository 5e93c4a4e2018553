// Package gittest makes real repositories with the real git for tests.
//
// Every repository and key lives in the test's own directory and sees nothing
// of the machine's Git, SSH or GnuPG configuration. It is used by tests only.
package gittest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Key is a signing key.
type Key struct {
	Name string
	// Kind is ssh or openpgp.
	Kind string
	// Private is the path of an SSH private key, or an OpenPGP key id.
	Private string
	// Public is what a trust root lists.
	Public string
	home   string // GnuPG's
	// program signs instead of gpg, if set.
	program string
}

// Need skips the test if a program is missing.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// SSHKey makes an ed25519 key.
func SSHKey(t testing.TB, name string) *Key {
	t.Helper()
	return SSHKeyOf(t, name, "ed25519")
}

// SSHKeyOf makes an SSH key of a type, with further arguments to ssh-keygen.
func SSHKeyOf(t testing.TB, name, kind string, args ...string) *Key {
	t.Helper()
	Need(t, "git", "ssh-keygen")
	path := filepath.Join(t.TempDir(), name)
	run(t, "", nil, "ssh-keygen", append([]string{"-q", "-t", kind, "-N", "", "-C", name, "-f", path}, args...)...)
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return &Key{Name: name, Kind: "ssh", Private: path, Public: strings.TrimSpace(string(public))}
}

// PGPKey makes an OpenPGP key that may sign; expire is as gpg takes it ("0",
// "1d", "seconds=5").
func PGPKey(t testing.TB, name, expire string) *Key {
	t.Helper()
	return newPGPKey(t, name, expire)
}

func newPGPKey(t testing.TB, name, expire string, options ...string) *Key {
	t.Helper()
	Need(t, "git", "gpg")
	// GnuPG's sockets need a short path.
	home, err := os.MkdirTemp("/tmp", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{Name: name, Kind: "openpgp", home: home}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--homedir", home, "--kill", "all")
		_ = cmd.Run() // fails when no daemon runs
		_ = os.RemoveAll(home)
	})
	mail := name + "@example.com"
	k.GPG(t, append(options, "--quick-generate-key", fmt.Sprintf("%s <%s>", name, mail), "ed25519", "cert,sign", expire)...)
	for line := range strings.SplitSeq(k.GPG(t, "--with-colons", "--list-keys", mail), "\n") {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			k.Private = f[9]
			break
		}
	}
	k.Export(t)
	return k
}

// OldPGPKey makes an OpenPGP key whose owner lives at a time as gpg's
// --faked-system-time takes it: it was made then, and signs then.
func OldPGPKey(t testing.TB, name, expire, at string) *Key {
	t.Helper()
	k := newPGPKey(t, name, expire, "--faked-system-time", at)
	k.program = filepath.Join(k.home, "gpg-then")
	script := fmt.Sprintf("#!/bin/sh\nexec gpg --faked-system-time %s \"$@\"\n", at)
	if err := os.WriteFile(k.program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return k
}

// GPG runs gpg with the key's home.
func (k *Key) GPG(t testing.TB, args ...string) string {
	t.Helper()
	base := []string{"--homedir", k.home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}
	return run(t, "", nil, "gpg", append(base, args...)...)
}

// Export takes the present public key into Public.
func (k *Key) Export(t testing.TB) {
	t.Helper()
	k.Public = strings.TrimSpace(k.GPG(t, "--armor", "--export", k.Private))
}

// Revoke revokes the key with the certificate that gpg made with it, and takes
// the result into Public.
func (k *Key) Revoke(t testing.TB) {
	t.Helper()
	path := filepath.Join(k.home, "openpgp-revocs.d", k.Private+".rev")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// gpg puts a colon before the armor, so that nobody imports it by accident.
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), ":-----BEGIN", "-----BEGIN", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	k.GPG(t, "--import", path)
	k.Export(t)
}

// SSHSign signs a message for a namespace with ssh-keygen -Y.
func SSHSign(t testing.TB, k *Key, namespace, message string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", nil, "ssh-keygen", "-q", "-Y", "sign", "-f", k.Private, "-n", namespace, file)
	armor, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	return string(armor)
}

// Repo is a repository with a work tree.
type Repo struct {
	Dir string
	t   testing.TB
	env []string
}

// NewRepo makes an empty repository with branch main.
func NewRepo(t testing.TB) *Repo {
	t.Helper()
	Need(t, "git")
	r := &Repo{Dir: filepath.Join(t.TempDir(), "repo"), t: t}
	run(t, "", nil, "git", "init", "-q", "-b", "main", r.Dir)
	r.Git("config", "user.name", "Test")
	r.Git("config", "user.email", "test@example.com")
	return r
}

// Copy makes a second repository with the same content, which is faster than
// making it again.
func (r *Repo) Copy(t testing.TB) *Repo {
	t.Helper()
	c := &Repo{Dir: filepath.Join(t.TempDir(), "repo"), t: t, env: slices.Clone(r.env)}
	if err := os.CopyFS(c.Dir, os.DirFS(r.Dir)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Env adds variables to every later git command.
func (r *Repo) Env(kv ...string) { r.env = append(r.env, kv...) }

// Git runs git in the work tree and returns what it printed.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	return run(r.t, r.Dir, r.env, "git", args...)
}

// Write writes a file of the work tree and stages it.
func (r *Repo) Write(path, content string) {
	r.t.Helper()
	full := filepath.Join(r.Dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.Git("add", path)
}

// Link makes a symbolic link in the work tree and stages it.
func (r *Repo) Link(path, target string) {
	r.t.Helper()
	full := filepath.Join(r.Dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(target, full); err != nil {
		r.t.Fatal(err)
	}
	r.Git("add", path)
}

// Remove deletes files of the work tree and stages that.
func (r *Repo) Remove(paths ...string) {
	r.t.Helper()
	r.Git(append([]string{"rm", "-r", "-q"}, paths...)...)
}

// SignArgs are the options of git that sign with the key; unsigned if nil.
func (k *Key) SignArgs() []string {
	switch {
	case k == nil:
		return []string{"-c", "commit.gpgsign=false"}
	case k.Kind == "ssh":
		return []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + k.Private, "-c", "commit.gpgsign=true"}
	}
	openpgp := []string{"-c", "gpg.format=openpgp"}
	if k.program != "" {
		openpgp = append(openpgp, "-c", "gpg.program="+k.program)
	}
	return append(openpgp, "-c", "user.signingkey="+k.Private, "-c", "commit.gpgsign=true")
}

func (r *Repo) with(k *Key) {
	if k != nil && k.home != "" {
		r.env = append(r.env, "GNUPGHOME="+k.home)
	}
}

// Commit commits what is staged, signed by key (unsigned if nil), and returns
// the commit's id.
func (r *Repo) Commit(key *Key, message string) string {
	r.t.Helper()
	r.with(key)
	r.Git(append(key.SignArgs(), "commit", "-q", "--allow-empty", "-m", message)...)
	return r.Head()
}

// Merge merges a branch with a merge commit signed by key.
func (r *Repo) Merge(key *Key, branch string) string {
	r.t.Helper()
	r.with(key)
	r.Git(append(key.SignArgs(), "merge", "-q", "--no-ff", "-m", "merge "+branch, branch)...)
	return r.Head()
}

// Head returns the id of HEAD.
func (r *Repo) Head() string {
	r.t.Helper()
	return strings.TrimSpace(r.Git("rev-parse", "HEAD"))
}

// Raw returns a commit object.
func (r *Repo) Raw(id string) []byte {
	r.t.Helper()
	return []byte(r.Git("cat-file", "commit", id))
}

// Store writes a raw object and returns its id.
func (r *Repo) Store(kind string, raw []byte) string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "object")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(r.Git("hash-object", "--literally", "-t", kind, "-w", file))
}

// Root writes trust/root.yaml of the given version, listing the keys, and
// stages it. rules is YAML below "rules:", or empty.
func (r *Repo) Root(version int, rules string, keys ...*Key) {
	r.t.Helper()
	r.Write("trust/root.yaml", RootYAML(version, rules, keys...))
}

// RootYAML is the text of a trust root.
func RootYAML(version int, rules string, keys ...*Key) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\nversion: %d\nsigners:\n", version)
	for _, k := range keys {
		fmt.Fprintf(&b, "- name: %s\n  kind: %s\n  publicKey: |\n", k.Name, k.Kind)
		for line := range strings.SplitSeq(k.Public, "\n") {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	if rules != "" {
		b.WriteString("rules:\n" + rules)
	}
	return b.String()
}

func run(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
	}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Home is the GnuPG home of an OpenPGP key.
func (k *Key) Home() string { return k.home }
