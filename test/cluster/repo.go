package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Signing says how a commit is signed.
type Signing int

const (
	// Signed by the repository's own signer.
	Signed Signing = iota
	// Unsigned is what `git commit` does without configuration.
	Unsigned
	// Stranger signs with an SSH key that the trust root does not know.
	Stranger
)

// Repo is a real Git repository that describes a cluster: a work tree, the
// bare repository it is pushed to, and the keys.
type Repo struct {
	// Dir is the work tree, Bare what nodes read.
	Dir, Bare string
	// Signer is what the trust root calls the signer.
	Signer string
	// Path is the site's directory.
	Path string
	// OpenPGP says that commits are signed with an OpenPGP key, not with SSH.
	OpenPGP bool

	root, key, stranger, gnupg string
	paths                      Paths
}

// Site is a minimal site: one Deployment of the example image behind a
// NodePort Service.
const Site = `apiVersion: v1
kind: Namespace
metadata:
  name: site
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: message
  namespace: site
data:
  text: first message
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
  namespace: site
spec:
  replicas: 1
  selector:
    matchLabels: {app: hello}
  template:
    metadata:
      labels: {app: hello}
    spec:
      containers:
        - name: hello
          image: bothy.local/hello:1
          env:
            - name: MESSAGE
              value: first message
          ports:
            - containerPort: 8080
          readinessProbe:
            httpGet: {path: /healthz, port: 8080}
            periodSeconds: 1
          resources:
            requests: {cpu: 10m, memory: 16Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: hello
  namespace: site
spec:
  type: NodePort
  selector: {app: hello}
  ports:
    - port: 80
      targetPort: 8080
      nodePort: 30080
`

// NewRepo makes a repository with Site in it, signed with a fresh SSH key, or
// with a fresh OpenPGP key if openPGP is set. More files can be given by path.
func NewRepo(t testing.TB, openPGP bool, files map[string]string) *Repo {
	t.Helper()
	template := t.TempDir()
	all := map[string]string{
		"clusters/default/site.yaml":          Site,
		"clusters/default/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - site.yaml\n",
	}
	for path, content := range files {
		all[path] = content
	}
	for path, content := range all {
		writeFile(t, filepath.Join(template, path), content)
	}
	return RepoFrom(t, template, openPGP)
}

// RepoFrom makes a repository from a template directory with `bothy repo
// init`, as a user does.
func RepoFrom(t testing.TB, template string, openPGP bool) *Repo {
	t.Helper()
	paths := Require(t)
	dir := RunDir(t, paths, "repo-"+randomName())
	r := &Repo{
		Dir: filepath.Join(dir, "tree"), Bare: filepath.Join(dir, "site.git"), Signer: "alice@example.org",
		Path: "clusters/default", OpenPGP: openPGP, root: dir, paths: paths,
	}
	args := []string{"repo", "init", "--template", template, "--dir", r.Dir, "--bare", r.Bare, "--signer", r.Signer}
	if openPGP {
		args = append(args, "--gpg-key", r.makeOpenPGPKey(t))
	} else {
		r.key = filepath.Join(dir, "keys", "signer")
		args = append(args, "--generate-key", r.key)
	}
	r.command(t, paths.Bothy(), args...)
	return r
}

// makeOpenPGPKey returns the fingerprint of a new key in a keyring of the
// repository's own.
func (r *Repo) makeOpenPGPKey(t testing.TB) string {
	t.Helper()
	r.gnupg = t.TempDir() // short, because gpg-agent's socket is in it
	if err := os.Chmod(r.gnupg, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+r.gnupg)
		if err := cmd.Run(); err != nil {
			t.Errorf("stop gpg-agent: %v", err)
		}
	})
	r.command(t, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Alice <"+r.Signer+">", "ed25519", "sign", "1d")
	out := r.command(t, "gpg", "--batch", "--with-colons", "--list-secret-keys")
	for line := range strings.Lines(out) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && len(f) > 9 {
			return f[9]
		}
	}
	t.Fatalf("gpg made no key: %s", out)
	return ""
}

// URL is what nodes are given.
func (r *Repo) URL() string { return "file://" + r.Bare }

// TrustRoot is the file nodes are given.
func (r *Repo) TrustRoot() string { return filepath.Join(r.Dir, "trust", "root.yaml") }

// UpArgs are the arguments of `bothy up` for this repository.
func (r *Repo) UpArgs() []string {
	return []string{"--repo", r.URL(), "--path", r.Path, "--trust-root", r.TrustRoot()}
}

// Write writes a file of the work tree.
func (r *Repo) Write(t testing.TB, path, content string) {
	t.Helper()
	writeFile(t, filepath.Join(r.Dir, path), content)
}

// Read reads a file of the work tree.
func (r *Repo) Read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Replace changes text that must be there in a file of the work tree.
func (r *Repo) Replace(t testing.TB, path, old, text string) {
	t.Helper()
	content := r.Read(t, path)
	if !strings.Contains(content, old) {
		t.Fatalf("%s does not contain %q", path, old)
	}
	r.Write(t, path, strings.ReplaceAll(content, old, text))
}

// Remove removes a file of the work tree.
func (r *Repo) Remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(r.Dir, path)); err != nil {
		t.Fatal(err)
	}
}

// Push commits everything in the work tree, pushes it, and returns the commit.
func (r *Repo) Push(t testing.TB, message string, signing Signing) string {
	t.Helper()
	r.Git(t, "add", "--all")
	r.Git(t, append(r.signingArgs(t, signing), "-m", message)...)
	r.Git(t, "push", "--quiet", "--force", "origin", "HEAD:main")
	return r.Head(t)
}

// Head is the newest commit of the work tree.
func (r *Repo) Head(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(r.Git(t, "rev-parse", "HEAD"))
}

// Reset takes the work tree and the bare repository back to a commit, as after
// a push that should not have been.
func (r *Repo) Reset(t testing.TB, commit string) {
	t.Helper()
	r.Git(t, "reset", "--quiet", "--hard", commit)
	r.Git(t, "push", "--quiet", "--force", "origin", "HEAD:main")
}

func (r *Repo) signingArgs(t testing.TB, signing Signing) []string {
	t.Helper()
	commit := []string{"commit", "--quiet", "--allow-empty"}
	switch {
	case signing == Unsigned:
		return append([]string{"-c", "commit.gpgSign=false"}, append(commit, "--no-gpg-sign")...)
	case signing == Stranger:
		if r.stranger == "" {
			r.stranger = filepath.Join(r.root, "keys", "stranger")
			if err := os.MkdirAll(filepath.Dir(r.stranger), 0o700); err != nil {
				t.Fatal(err)
			}
			r.command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mallory", "-f", r.stranger)
		}
		return append([]string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + r.stranger}, append(commit, "--gpg-sign")...)
	case r.OpenPGP:
		return append([]string{"-c", "gpg.format=openpgp", "-c", "user.signingKey=" + r.Signer}, append(commit, "--gpg-sign")...)
	}
	return append([]string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + r.key}, append(commit, "--gpg-sign")...)
}

// Git runs git in the work tree.
func (r *Repo) Git(t testing.TB, args ...string) string {
	t.Helper()
	return r.command(t, "git", append([]string{"-C", r.Dir}, args...)...)
}

func (r *Repo) command(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(),
		"HOME="+r.root, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Alice", "GIT_AUTHOR_EMAIL="+r.Signer, "GIT_COMMITTER_NAME=Alice", "GIT_COMMITTER_EMAIL="+r.Signer,
	)
	if r.gnupg != "" {
		cmd.Env = append(cmd.Env, "GNUPGHOME="+r.gnupg)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("write a test file: %w", err))
	}
}
