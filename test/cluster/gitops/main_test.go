// Package gitops shows that Git is the cluster: what a trusted person pushes is
// live, what nobody trusted signed changes nothing, and what is gone from Git
// is gone from the cluster.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	patience = time.Minute
	// pollInterval of the nodes under test; the default is 30 s.
	pollInterval = 5 * time.Second
)

// site is a node that serves cluster.Site, and what a test needs to talk to it.
type site struct {
	repo *cluster.Repo
	node *cluster.Node
	kube *cluster.Kubectl
	url  string
}

func newSite(t *testing.T, openPGP bool) *site {
	t.Helper()
	s := &site{repo: cluster.NewRepo(t, openPGP, nil)}
	s.node = cluster.NodeFor(t, s.repo)
	s.node.Args = append(s.node.Args, "--interval", pollInterval.String())
	up := s.node.Up(t)
	if up.Commit != s.repo.Head(t) || up.Signer != s.repo.Signer {
		t.Fatalf("bothy up names commit %s by %s; pushed was %s by %s", up.Commit, up.Signer, s.repo.Head(t), s.repo.Signer)
	}
	if len(up.URLs) != 1 {
		t.Fatalf("one URL was expected: %v", up.URLs)
	}
	s.kube, s.url = s.node.Kubectl(t), up.URLs[0]
	return s
}

// says makes one request to the example workload.
func (s *site) says(ctx context.Context, want string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), want) {
		err = fmt.Errorf("it says %q", body)
	}
	return err
}

// accepted returns nil if the node runs the commit, and names the signer.
func (s *site) accepted(ctx context.Context, commit string) error {
	st, err := s.node.ReadStatus(ctx)
	switch {
	case err != nil:
		return err
	case st.Git.Accepted == nil || st.Git.Accepted.Commit != commit:
		return fmt.Errorf("accepted is %+v", st.Git.Accepted)
	case st.Git.Accepted.Signer != s.repo.Signer:
		return fmt.Errorf("the signer is said to be %q", st.Git.Accepted.Signer)
	case st.Git.Applied == nil || st.Git.Applied.Commit != commit:
		return fmt.Errorf("applied is %+v, phase %s, objects %+v", st.Git.Applied, st.Git.Phase, st.Git.Objects)
	}
	return nil
}

// refused pushes with the signing given and asserts that the commit is reported
// with the rule it breaks and a remedy, and that nothing of it is live.
func (s *site) refused(t *testing.T, signing cluster.Signing, rule, message string) *cluster.Refusal {
	t.Helper()
	var rejected *cluster.Refusal
	before := s.node.Status(t)
	commit := s.repo.Push(t, message, signing)
	if r := s.node.Try(t, "reconcile", "--wait"); r.Code == 0 {
		t.Errorf("bothy reconcile reports success for a commit that must be refused: %s", r.Stdout)
	}
	cluster.Eventually(t, patience, "commit "+commit+" to be refused", func() error {
		st, err := s.node.ReadStatus(t.Context())
		if err != nil {
			return err
		}
		rejected = st.Git.Rejected
		if rejected == nil || rejected.Commit != commit {
			return fmt.Errorf("rejected is %+v, accepted %+v", rejected, st.Git.Accepted)
		}
		return nil
	})
	t.Logf("refused by rule %q: %s; remedy: %s", rejected.Rule, rejected.Problem, rejected.Remedy)
	if rejected.Rule != rule || rejected.Problem == "" || rejected.Remedy == "" {
		t.Errorf("rule %q with problem and remedy was expected: %+v", rule, rejected)
	}
	text := s.node.Run(t, "status")
	for _, want := range []string{commit[:12], rejected.Rule, rejected.Remedy} {
		if !strings.Contains(text, want) {
			t.Errorf("bothy status does not show %q:\n%s", want, text)
		}
	}
	after := s.node.Status(t)
	if after.Git.Accepted == nil || *after.Git.Accepted != *before.Git.Accepted || *after.Git.Applied != *before.Git.Applied {
		t.Errorf("what is accepted or applied changed: from %+v to %+v", before.Git.Accepted, after.Git.Accepted)
	}
	return rejected
}

// push pushes a signed commit and waits until it is live.
func (s *site) push(t *testing.T, message string) string {
	t.Helper()
	commit := s.repo.Push(t, message, cluster.Signed)
	start := time.Now()
	if r := s.node.Try(t, "reconcile", "--wait"); r.Code != 0 {
		t.Fatalf("bothy reconcile: exit code %d: %s", r.Code, r.Stderr)
	}
	if err := s.accepted(t.Context(), commit); err != nil {
		t.Fatalf("bothy reconcile --wait came back, but commit %s is not what runs: %v", commit, err)
	}
	t.Logf("commit %s was live %.2f s after bothy reconcile was asked", commit[:12], time.Since(start).Seconds())
	return commit
}

var errStill = errors.New("it is still there")

// gone waits until an object no longer exists.
func (s *site) gone(t *testing.T, namespace, object string) {
	t.Helper()
	cluster.Eventually(t, patience, object+" to be gone", func() error {
		out, err := s.kube.In(namespace).Output(t.Context(), "get", object, "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = errStill
		}
		return err
	})
}
