package gitops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// The story of the README, with an SSH key: a cluster comes up from a signed
// repository; a signed push goes live; an unsigned one, a stranger's and a
// malformed one are refused and change nothing; what is deleted in Git is
// pruned; drift is undone; and the node outlives its repository.
func TestPushes(t *testing.T) {
	s := newSite(t, false)
	const file = "clusters/default/site.yaml"
	first := s.repo.Head(t)

	t.Run("a signed push goes live", func(t *testing.T) {
		s.repo.Replace(t, file, "first message", "second message")
		commit := s.push(t, "Say something new")
		cluster.Eventually(t, patience, "the workload to say the new message", func() error { return s.says(t.Context(), "second message") })
		text := s.node.Run(t, "status")
		for _, want := range []string{commit[:12], s.repo.Signer} {
			if !strings.Contains(text, want) {
				t.Errorf("bothy status does not name %q:\n%s", want, text)
			}
		}
	})

	t.Run("polling finds a push by itself", func(t *testing.T) {
		s.repo.Replace(t, file, "second message", "third message")
		commit := s.repo.Push(t, "Nobody calls reconcile", cluster.Signed)
		cluster.Eventually(t, pollInterval+patience, "the commit to be live", func() error { return s.accepted(t.Context(), commit) })
		cluster.Eventually(t, patience, "the workload to say the new message", func() error { return s.says(t.Context(), "third message") })
	})

	good := s.repo.Head(t)
	for _, c := range []struct {
		name    string
		signing cluster.Signing
	}{{"an unsigned push is refused", cluster.Unsigned}, {"a stranger's push is refused", cluster.Stranger}} {
		t.Run(c.name, func(t *testing.T) {
			s.repo.Replace(t, file, "third message", "words of mallory")
			s.refused(t, c.signing, "signature", "Take over")
			if err := s.says(t.Context(), "third message"); err != nil {
				t.Errorf("the workload no longer says what the last good commit says: %v", err)
			}
			s.repo.Reset(t, good)
			s.push(t, "All is well")
			good = s.repo.Head(t)
			if st := s.node.Status(t); st.Git.Rejected != nil {
				t.Errorf("the refusal is still shown after a good push: %+v", st.Git.Rejected)
			}
		})
	}

	t.Run("an old commit pushed again is refused", func(t *testing.T) {
		s.repo.Reset(t, first)
		s.refused(t, cluster.Signed, "descent", "A sibling history")
		s.repo.Reset(t, good)
		s.push(t, "Back on the line")
		good = s.repo.Head(t)
	})

	for _, c := range []struct {
		name, content, field string
		line                 string
	}{
		{"unknown field", clusterFile + "  netwrok: {}\n", "spec.netwrok", ":6:"},
		{"wrong type", clusterFile + "  controlPlane:\n    port: \"6443\"\n", "spec.controlPlane.port", ":7:"},
		{"duplicate key", clusterFile + "  node: {maxPods: 50}\n  node: {maxPods: 60}\n", "spec.node", ":7:"},
	} {
		t.Run("a malformed cluster.yaml is refused: "+c.name, func(t *testing.T) {
			s.repo.Write(t, "clusters/default/cluster.yaml", c.content)
			r := s.refused(t, cluster.Signed, "cluster configuration", "Malformed settings")
			for _, want := range []string{"clusters/default/cluster.yaml" + c.line, c.field} {
				if !strings.Contains(r.Problem, want) {
					t.Errorf("the problem does not name %q: %s", want, r.Problem)
				}
			}
			s.repo.Reset(t, good)
		})
	}

	t.Run("a deleted manifest is pruned", func(t *testing.T) {
		s.repo.Write(t, "clusters/default/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: site}\ndata: {a: b}\n")
		s.repo.Replace(t, "clusters/default/kustomization.yaml", "  - site.yaml\n", "  - site.yaml\n  - extra.yaml\n")
		s.push(t, "Add a ConfigMap")
		s.kube.In("site").Run(t, "get", "configmap", "extra")
		s.kube.In("site").Run(t, "create", "configmap", "by-hand")
		s.repo.Remove(t, "clusters/default/extra.yaml")
		s.repo.Replace(t, "clusters/default/kustomization.yaml", "  - extra.yaml\n", "")
		s.push(t, "Remove it again")
		s.gone(t, "site", "configmap/extra")
		s.kube.In("site").Run(t, "get", "configmap/by-hand", "deployment/hello")
	})

	t.Run("a commit that would delete most is held back", func(t *testing.T) {
		whole := s.repo.Read(t, file)
		namespace, _, _ := strings.Cut(whole, "---\n")
		s.repo.Write(t, file, namespace)
		commit := s.repo.Push(t, "An accident", cluster.Signed)
		s.node.Try(t, "reconcile", "--wait")
		cluster.Eventually(t, patience, "status to say that nothing was deleted", func() error {
			st, err := s.node.ReadStatus(t.Context())
			if err == nil && (st.Git.Accepted.Commit != commit || st.Git.Phase != "degraded" || !strings.Contains(st.Git.Message, "would delete")) {
				err = fmt.Errorf("accepted %+v, phase %s, message %q", st.Git.Accepted, st.Git.Phase, st.Git.Message)
			}
			return err
		})
		if text := s.node.Run(t, "status"); !strings.Contains(text, "Bothy-Allow-Prune") {
			t.Errorf("bothy status does not say what to do if it is meant:\n%s", text)
		}
		s.kube.In("site").Run(t, "get", "deployment/hello", "service/hello", "configmap/message")
		s.repo.Write(t, file, whole)
		s.push(t, "All is back")
		good = s.repo.Head(t)
	})

	t.Run("drift is undone", func(t *testing.T) {
		k := s.kube.In("site")
		k.Run(t, "patch", "configmap", "message", "--type=merge", "-p", `{"data": {"text": "changed by hand"}}`)
		k.FieldIs(t, patience, "configmap/message", "{.data.text}", "third message")
		k.Run(t, "delete", "configmap", "message")
		k.FieldIs(t, patience, "configmap/message", "{.data.text}", "third message")
	})

	t.Run("the node outlives its repository", func(t *testing.T) {
		hidden := s.repo.Bare + ".hidden"
		if err := os.Rename(s.repo.Bare, hidden); err != nil {
			t.Fatal(err)
		}
		s.node.Try(t, "reconcile", "--wait")
		cluster.Eventually(t, patience, "status to say that the repository is unreachable", func() error {
			st, err := s.node.ReadStatus(t.Context())
			if err == nil && st.Git.Source.LastError == "" {
				err = errStill
			}
			return err
		})
		if err := s.says(t.Context(), "third message"); err != nil {
			t.Errorf("without its repository the node does not serve: %v", err)
		}
		k := s.kube.In("site")
		k.Run(t, "delete", "configmap", "message")
		k.FieldIs(t, patience, "configmap/message", "{.data.text}", "third message")

		// Even a restart needs no repository: the mirror is on disk.
		s.node.Down(t)
		s.node.Up(t)
		if err := s.says(t.Context(), "third message"); err != nil {
			t.Errorf("after a restart without a repository: %v", err)
		}

		if err := os.Rename(hidden, s.repo.Bare); err != nil {
			t.Fatal(err)
		}
		s.push(t, "The repository is back")
	})

	if matches, err := filepath.Glob(filepath.Join(s.node.State, "trust", "*")); err != nil || len(matches) == 0 {
		t.Errorf("the accepted commit is not recorded on disk: %v, %v", matches, err)
	}
}

// clusterFile is a valid start of a cluster.yaml: five lines, to which tests
// add a faulty sixth.
const clusterFile = `apiVersion: bothy.dev/v1alpha1
kind: Cluster
metadata:
  name: default
spec:
`

// The same with OpenPGP signatures, in short.
func TestPushesSignedWithOpenPGP(t *testing.T) {
	s := newSite(t, true)
	if kind := s.node.Status(t).Git.Accepted.Kind; kind != "openpgp" {
		t.Errorf("the signature's kind is said to be %q", kind)
	}
	s.repo.Replace(t, "clusters/default/site.yaml", "first message", "second message")
	s.push(t, "Say something new")
	cluster.Eventually(t, patience, "the workload to say the new message", func() error { return s.says(t.Context(), "second message") })
	s.repo.Replace(t, "clusters/default/site.yaml", "second message", "words of mallory")
	rejected := s.refused(t, cluster.Unsigned, "signature", "Not signed")
	if err := s.says(t.Context(), "second message"); err != nil {
		t.Error(err)
	}

	// The remedy is what it says: sign the commit and push it again, in the
	// repositories as `bothy repo init` has made them.
	if !strings.Contains(rejected.Remedy, "git commit --amend -S") {
		t.Errorf("the remedy is %q", rejected.Remedy)
	}
	s.repo.Git(t, "commit", "--quiet", "--amend", "--no-edit", "-S")
	s.repo.Git(t, "push", "--quiet", "--force-with-lease")
	if r := s.node.Try(t, "reconcile", "--wait"); r.Code != 0 {
		t.Fatalf("bothy reconcile: exit code %d: %s", r.Code, r.Stderr)
	}
	cluster.Eventually(t, patience, "the workload to say what is now signed", func() error { return s.says(t.Context(), "words of mallory") })
	if st := s.node.Status(t); st.Git.Rejected != nil {
		t.Errorf("the refusal is still shown: %+v", st.Git.Rejected)
	}
}
