// Package flux shows that who knows Flux knows bothy: a repository as `flux
// bootstrap` leaves it boots unchanged, and the flux command, built from its own
// release, works against a node as against a cluster that runs Flux.
//
// The assertions are on what an operator reads.
package flux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/cluster/gitserver"
)

const (
	patience = time.Minute
	// longInterval is far beyond the test: what happens was asked for, or is
	// driven by an event, and never by polling.
	longInterval = "1h"
	siteDir      = "clusters/default"
)

// site is a node whose repository has the layout of Flux.
type site struct {
	repo *cluster.Repo
	node *cluster.Node
	kube *cluster.Kubectl
	git  *gitserver.Server
	flux string
}

func newSite(t *testing.T) *site {
	t.Helper()
	paths := cluster.Require(t)
	s := &site{flux: filepath.Join(paths.Bin, "flux")}
	if _, err := os.Stat(s.flux); err != nil {
		t.Skipf("%s is missing: run `make flux`, which builds it", s.flux)
	}
	template := t.TempDir()
	for path, content := range repository(t) {
		file := filepath.Join(template, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	s.repo = cluster.RepoFrom(t, template, false)
	var err error
	if s.git, err = gitserver.Start(filepath.Dir(s.repo.Bare)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.git.Close(); err != nil {
			t.Error(err)
		}
	})
	s.node = cluster.NodeFor(t, s.repo)
	s.node.Args = append(s.node.Args, "--interval", longInterval)
	// Secrets are not in Git, and the first commit waits for one.
	s.node.Up(t, "--no-wait")
	s.wait(t, "the API server to answer", func() error {
		var err error
		if s.kube, err = s.node.NewKubectl(t.Context()); err == nil {
			_, err = s.kube.Output(t.Context(), "get", "--raw", "/readyz")
		}
		return err
	})
	return s
}

// wait is cluster.Eventually with the package's patience.
func (s *site) wait(t *testing.T, what string, condition func() error) {
	t.Helper()
	cluster.Eventually(t, patience, what, condition)
}

// try runs the flux command and returns all it printed.
func (s *site) try(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.flux, args...)
	cmd.Dir = s.repo.Dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kube.Kubeconfig, "HOME="+filepath.Dir(s.node.State), "NO_COLOR=1", "TERM=dumb")
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("flux %s: %w:\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// run is try, ending the test on failure.
func (s *site) run(t *testing.T, args ...string) string {
	t.Helper()
	start := time.Now()
	out, err := s.try(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("flux %s (%.1f s)\n%s", strings.Join(args, " "), time.Since(start).Seconds(), out)
	return out
}

// shows runs a flux command until its output has a line with all the words.
func (s *site) shows(t *testing.T, command []string, words ...string) {
	t.Helper()
	var out string
	s.wait(t, fmt.Sprintf("flux %s to show %q", strings.Join(command, " "), words), func() error {
		var err error
		if out, err = s.try(t.Context(), command...); err == nil && !hasLine(out, words...) {
			err = fmt.Errorf("it shows:\n%s", out)
		}
		return err
	})
	t.Logf("flux %s\n%s", strings.Join(command, " "), out)
}

// hasLine says whether a line has all the words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// has fails the test unless the output has all the texts.
func has(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing in:\n%s", text, out)
		}
	}
}

// push pushes a signed commit and returns its revision as Flux writes it.
func (s *site) push(t *testing.T, message string) string {
	t.Helper()
	return "main@sha1:" + s.repo.Push(t, message, cluster.Signed)
}

// revision is the newest commit as flux get prints it.
func (s *site) revision(t *testing.T) string {
	t.Helper()
	return "main@sha1:" + s.repo.Head(t)[:8]
}

// text is what the greeting says in the cluster.
func (s *site) text(ctx context.Context) (string, error) {
	return s.kube.In("shop").Field(ctx, "configmap/greeting", "{.data.text}")
}

// says waits until the greeting has a text.
func (s *site) says(t *testing.T, want string) {
	t.Helper()
	s.kube.In("shop").FieldIs(t, patience, "configmap/greeting", "{.data.text}", want)
}

// gone waits until an object no longer exists.
func (s *site) gone(t *testing.T, namespace, object string) {
	t.Helper()
	s.wait(t, object+" to be gone", func() error {
		out, err := s.kube.In(namespace).Output(t.Context(), "get", object, "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = errors.New("it is still there")
		}
		return err
	})
}
