package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/test/cluster"
)

// repository is a work tree with a key, and the bare repository that nodes read.
type repository struct {
	tree, bare, key string
}

// newRepository makes one with `bothy repo init` from files by path.
func newRepository(ctx context.Context, paths cluster.Paths, dir string, files map[string]string) (*repository, error) {
	template := filepath.Join(dir, "template")
	r := &repository{tree: filepath.Join(dir, "tree"), bare: filepath.Join(dir, "git", "site.git"), key: filepath.Join(dir, "keys", "signer")}
	for path, content := range files {
		if err := writeFile(filepath.Join(template, path), content); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(r.bare), 0o755); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, paths.Bothy(), "repo", "init", "--template", template, "--dir", r.tree, "--bare", r.bare,
		"--signer", "bench", "--generate-key", r.key)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the repository: %w: %s", err, out)
	}
	return r, nil
}

func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// git runs git in the work tree.
func (r *repository) git(ctx context.Context, args ...string) (string, error) {
	return runGit(ctx, r.tree, nil, args...)
}

func runGit(ctx context.Context, dir string, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(dir), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@example.org", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@example.org")
	if stdin != nil {
		cmd.Stdin = strings.NewReader(string(stdin))
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// push commits the work tree, signed, and pushes it. It returns the revision as
// Flux writes it.
func (r *repository) push(ctx context.Context, message string) (string, error) {
	for _, args := range [][]string{
		{"add", "--all"},
		{"commit", "--quiet", "--gpg-sign", "-m", message},
		{"push", "--quiet", "origin", "HEAD:main"},
	} {
		if _, err := r.git(ctx, args...); err != nil {
			return "", err
		}
	}
	head, err := r.git(ctx, "rev-parse", "HEAD")
	return "main@sha1:" + head, err
}

// apps is the repository's content for so many Kustomizations of four objects,
// with a value that each of them shows.
func (r *repository) apps(n int, value string) error {
	if err := os.RemoveAll(filepath.Join(r.tree, "apps")); err != nil {
		return err
	}
	for i := range n {
		name := appName(i)
		if err := writeFile(filepath.Join(r.tree, "apps", name, "kustomization.yaml"),
			"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- config.yaml\n- app.yaml\n"); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(r.tree, "apps", name, "app.yaml"), strings.ReplaceAll(app, "NAME", name)); err != nil {
			return err
		}
		if err := r.setValue(i, value); err != nil {
			return err
		}
	}
	return nil
}

func appName(i int) string { return fmt.Sprintf("app-%03d", i) }

// setValue changes what one of them shows.
func (r *repository) setValue(i int, value string) error {
	name := appName(i)
	return writeFile(filepath.Join(r.tree, "apps", name, "config.yaml"),
		fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  value: %q\n", name, value))
}

// app is what flux-benchmark deploys, with a ConfigMap in place of the Ingress.
const app = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: NAME
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: NAME
spec:
  type: ClusterIP
  selector:
    app: NAME
  ports:
    - name: http
      port: 9898
      targetPort: http
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
spec:
  replicas: 0
  selector:
    matchLabels:
      app: NAME
  template:
    metadata:
      labels:
        app: NAME
    spec:
      serviceAccountName: NAME
      containers:
        - name: app
          image: bothy.local/hello:1
          envFrom:
            - configMapRef:
                name: NAME
          ports:
            - name: http
              containerPort: 9898
          resources:
            requests: {cpu: 100m, memory: 64Mi}
            limits: {cpu: 500m, memory: 128Mi}
`
