package flux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// A repository of Flux boots unchanged, and the flux command does to it what its
// manual says. The parts are one story: each goes on from the last.
func TestFluxCommand(t *testing.T) {
	s := newSite(t)
	for _, part := range []struct {
		name string
		run  func(*site, *testing.T)
	}{
		{"the repository boots unchanged", (*site).boots},
		{"a missing key is named, and found when it is there", (*site).decrypts},
		{"get", (*site).get},
		{"Flux's own controllers are left out", (*site).skipsComponents},
		{"tree", (*site).tree},
		{"trace", (*site).trace},
		{"events", (*site).events},
		{"export", (*site).export},
		{"diff", (*site).diff},
		{"reconcile source", (*site).reconcileSource},
		{"reconcile with source", (*site).reconcileWithSource},
		{"suspend and resume", (*site).suspend},
		{"a release is upgraded", (*site).upgrades},
		{"drift is undone at once", (*site).drift},
		{"what left Git is pruned", (*site).prunes},
		{"a failing health check is reported", (*site).healthCheck},
		{"create and delete", (*site).createAndDelete},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(s, t) })
	}
}

func (s *site) boots(t *testing.T) {
	s.shows(t, []string{"get", "sources", "git"}, "flux-system", s.revision(t), "True", "stored artifact for revision")
	s.shows(t, []string{"get", "kustomizations"}, "infrastructure", s.revision(t), "True", "Applied revision: "+s.revision(t))
	s.shows(t, []string{"get", "kustomizations"}, "apps", "True", "Applied revision: "+s.revision(t))
	s.says(t, "good morning from the hut, stranger")
	s.kube.In("shop").Rollout(t, patience, "deployment/hello")
}

func (s *site) decrypts(t *testing.T) {
	s.shows(t, []string{"get", "kustomizations"}, "secrets", "False", "sops-age")
	s.kube.In("flux-system").Run(t, "create", "secret", "generic", "sops-age", "--from-file=age.agekey="+filepath.Join(s.node.Paths.Root, "test/cluster/flux/testdata/sops/site.agekey"))
	s.run(t, "reconcile", "kustomization", "secrets")
	s.shows(t, []string{"get", "kustomizations"}, "secrets", "True", "Applied revision: "+s.revision(t))
	out := s.kube.In("shop").Run(t, "get", "secret", "vault", "-o", "go-template={{.data.password | base64decode}}")
	has(t, out, "opened with the key of the site")
	s.shows(t, []string{"get", "kustomizations"}, "flux-system", s.revision(t), "True")
}

func (s *site) get(t *testing.T) {
	s.shows(t, []string{"get", "helmreleases", "-A"}, "shelf", "0.1.0", "True", "Helm install succeeded for release shop/shop-shelf.v1 with chart shelf@0.1.0")
	out := s.run(t, "get", "all", "-A")
	for _, object := range []string{
		"gitrepository/flux-system", "helmchart/flux-system-shelf", "helmrelease/shelf",
		"kustomization/apps", "kustomization/flux-system", "kustomization/infrastructure", "kustomization/secrets",
	} {
		if !hasLine(out, object, "True") {
			t.Errorf("flux get all shows no line for %s that is ready", object)
		}
	}
	has(t, s.run(t, "check", "--pre"), "prerequisites checks passed")
}

func (s *site) skipsComponents(t *testing.T) {
	k := s.kube.In("flux-system")
	if out := k.Run(t, "get", "deployments,services,serviceaccounts", "-o", "name"); strings.Contains(out, "controller") {
		t.Errorf("parts of Flux were applied: %s", out)
	}
	if out, err := s.kube.Output(t.Context(), "get", "clusterrolebinding", "cluster-reconciler-flux-system", "--ignore-not-found", "-o", "name"); err != nil || out != "" {
		t.Errorf("rights of Flux's controllers were applied: %s, %v", out, err)
	}
	has(t, k.Run(t, "get", "kustomization", "flux-system", "-o", "jsonpath={.status.conditions}"), "serves the Flux API itself")
	// What only Git may say about the boot repository stays as Git has it.
	has(t, k.Run(t, "get", "gitrepository", "flux-system", "-o", "jsonpath={.spec.url}"), "ssh://git@git.example.org/site.git")
}

func (s *site) tree(t *testing.T) {
	has(
		t, s.run(t, "tree", "kustomization", "flux-system"), "Kustomization/flux-system/flux-system", "Kustomization/flux-system/apps", "ConfigMap/shop/greeting",
		"Deployment/shop/hello", "Namespace/shop", "Secret/shop/vault", "HelmRelease/flux-system/shelf", "ConfigMap/shop/shop-shelf-books",
	)
}

func (s *site) trace(t *testing.T) {
	words := func(out string) string { return strings.Join(strings.Fields(out), " ") } // columns are aligned with blanks
	has(
		t, words(s.run(t, "trace", "-n", "shop", "configmap", "greeting")),
		"Object: ConfigMap/greeting", "Status: Managed by Flux", "Kustomization: apps", "Path: ./apps",
		"GitRepository: flux-system", "Revision: main@sha1:"+s.repo.Head(t),
	)
	has(t, words(s.run(t, "trace", "-n", "shop", "configmap", "shop-shelf-books")), "HelmRelease: shelf", "HelmChart: flux-system-shelf")
}

func (s *site) events(t *testing.T) {
	s.shows(t, []string{"events", "--for", "Kustomization/apps"}, "Normal", "ReconciliationSucceeded", "Kustomization/apps")
	s.shows(t, []string{"events", "--for", "HelmRelease/shelf"}, "Normal", "InstallSucceeded", "HelmRelease/shelf")
}

func (s *site) export(t *testing.T) {
	out := s.run(t, "export", "kustomization", "apps")
	has(t, out, "kind: Kustomization", "path: ./apps", "greeting: good morning", "name: infrastructure")
	if strings.Contains(out, "status:") {
		t.Errorf("flux export shows a status:\n%s", out)
	}
	has(t, s.run(t, "export", "source", "git", "flux-system"), "kind: GitRepository", "branch: main")
}

func (s *site) diff(t *testing.T) {
	args := []string{"diff", "kustomization", "apps", "--path", "./apps", "--progress-bar=false"}
	if out, err := s.try(t.Context(), args...); err != nil {
		t.Errorf("there is a difference before anything was changed: %v", err)
	} else if strings.Contains(out, "drifted") {
		t.Errorf("flux diff reports drift where nothing was changed:\n%s", out)
	}
	before := s.repo.Read(t, "apps/greeting.yaml")
	s.repo.Write(t, "apps/greeting.yaml", strings.ReplaceAll(before, "from", "out of"))
	out, err := s.try(t.Context(), args...)
	if err == nil {
		t.Errorf("flux diff shows nothing of a local change:\n%s", out)
	}
	t.Log(out)
	has(t, out, "ConfigMap/shop/greeting drifted", "good morning out of the hut")
	s.repo.Write(t, "apps/greeting.yaml", before)
}

func (s *site) reconcileSource(t *testing.T) {
	s.repo.Replace(t, "apps/greeting.yaml", "stranger", "friend")
	revision := s.push(t, "Greet friends")
	has(t, s.run(t, "reconcile", "source", "git", "flux-system"), "fetched revision "+revision)
	s.says(t, "good morning from the hut, friend")
	s.shows(t, []string{"get", "kustomizations"}, "apps", s.revision(t), "True")
}

func (s *site) reconcileWithSource(t *testing.T) {
	s.repo.Replace(t, "apps/greeting.yaml", "friend", "neighbour")
	revision := s.push(t, "Greet neighbours")
	has(t, s.run(t, "reconcile", "kustomization", "apps", "--with-source"), "fetched revision "+revision, "applied revision "+revision)
	if text, err := s.text(t.Context()); err != nil || !strings.Contains(text, "neighbour") {
		t.Errorf("flux reconcile came back, but the greeting is %q: %v", text, err)
	}
}

func (s *site) suspend(t *testing.T) {
	before, err := s.text(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has(t, s.run(t, "suspend", "kustomization", "apps"), "kustomization suspended")
	s.repo.Replace(t, "apps/greeting.yaml", "neighbour", "everybody")
	revision := s.push(t, "Greet everybody")
	s.run(t, "reconcile", "source", "git", "flux-system")
	s.shows(t, []string{"get", "kustomizations"}, "infrastructure", s.revision(t), "True") // it goes on
	if out := s.run(t, "get", "kustomizations", "apps"); !hasLine(out, "apps", "True") || strings.Contains(out, s.revision(t)) {
		t.Errorf("apps is not shown as suspended at its old revision")
	}
	s.kube.In("shop").Run(t, "patch", "configmap", "greeting", "--type=merge", "-p", `{"data": {"text": "by hand"}}`)
	cluster.Never(t, 2*time.Second, "a suspended Kustomization is left alone", func() error {
		if text, err := s.text(t.Context()); err != nil || text != "by hand" {
			return fmt.Errorf("the greeting is %q: %w", text, err)
		}
		return nil
	})
	has(t, s.run(t, "resume", "kustomization", "apps"), "kustomization resumed", "applied revision "+revision)
	s.says(t, strings.ReplaceAll(before, "neighbour", "everybody"))
}

func (s *site) upgrades(t *testing.T) {
	s.repo.Replace(t, siteDir+"/release.yaml", "books: 3", "books: 4")
	s.push(t, "One more book")
	s.run(t, "reconcile", "source", "git", "flux-system")
	s.shows(t, []string{"get", "helmreleases"}, "shelf", "True", "Helm upgrade succeeded for release shop/shop-shelf.v2")
	s.kube.In("shop").FieldIs(t, patience, "configmap/shop-shelf-books", "{.data.count}", "4")
	has(t, s.run(t, "reconcile", "helmrelease", "shelf", "--force"), "applied revision 0.1.0")
}

func (s *site) drift(t *testing.T) {
	want, err := s.text(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := s.kube.In("shop")
	k.Run(t, "patch", "configmap", "greeting", "--type=merge", "-p", `{"data": {"text": "changed by hand"}}`)
	s.says(t, want)
	k.Run(t, "delete", "configmap", "greeting")
	s.wait(t, "the deleted greeting to be back", func() error {
		text, err := s.text(t.Context())
		if err == nil && text != want {
			err = fmt.Errorf("it says %q", text)
		}
		return err
	})
}

func (s *site) prunes(t *testing.T) {
	s.repo.Write(t, "apps/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n")
	s.repo.Replace(t, "apps/kustomization.yaml", "- hello.yaml\n", "- hello.yaml\n- extra.yaml\n")
	s.push(t, "Add a ConfigMap")
	s.run(t, "reconcile", "kustomization", "apps", "--with-source")
	s.kube.In("shop").Run(t, "get", "configmap", "extra")
	has(t, s.run(t, "tree", "kustomization", "apps"), "ConfigMap/shop/extra")
	s.repo.Replace(t, "apps/kustomization.yaml", "- extra.yaml\n", "")
	s.repo.Remove(t, "apps/extra.yaml")
	s.push(t, "Remove it again")
	s.run(t, "reconcile", "kustomization", "apps", "--with-source")
	s.gone(t, "shop", "configmap/extra")
}

func (s *site) healthCheck(t *testing.T) {
	s.repo.Write(t, "sick/sick.yaml", strings.NewReplacer("name: hello", "name: sick", "app: hello", "app: sick", "bothy.local/hello:1", "bothy.local/no-such-image:1").Replace(hello))
	s.repo.Write(t, siteDir+"/sick.yaml", strings.Replace(kustomization("sick", "  targetNamespace: shop\n  wait: true\n"), "timeout: 2m", "timeout: 5s", 1))
	s.repo.Write(t, "after/after.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: after, namespace: shop}\n")
	s.repo.Write(t, siteDir+"/after.yaml", kustomization("after", "  dependsOn:\n    - name: sick\n"))
	s.push(t, "Something that does not start")
	s.run(t, "reconcile", "source", "git", "flux-system")
	s.shows(t, []string{"get", "kustomizations"}, "sick", "False", "Deployment/shop/sick")
	s.shows(t, []string{"get", "kustomizations"}, "after", "False", "dependency 'flux-system/sick' is not ready")
	s.shows(t, []string{"get", "kustomizations", "--status-selector", "ready=false"}, "sick")

	s.repo.Replace(t, "sick/sick.yaml", "no-such-image", "hello")
	s.push(t, "The right image")
	s.run(t, "reconcile", "source", "git", "flux-system")
	s.shows(t, []string{"get", "kustomizations"}, "sick", s.revision(t), "True")
	s.shows(t, []string{"get", "kustomizations"}, "after", s.revision(t), "True")
	s.kube.In("shop").Run(t, "get", "configmap", "after")
}

// createAndDelete adds a team's repository by hand, with objects that are in no
// Git repository.
func (s *site) createAndDelete(t *testing.T) {
	bare := s.teamRepository(t)
	url := s.git.URL(filepath.Base(bare))
	ca := filepath.Join(filepath.Dir(s.node.State), "ca.crt")
	if err := os.WriteFile(ca, s.git.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "create", "secret", "git", "team", "--url", url, "--username", "git", "--password", "any", "--ca-crt-file", ca)
	has(t, s.run(t, "create", "source", "git", "team", "--url", url, "--branch", "main", "--interval", longInterval, "--secret-ref", "team"), "fetched revision: main@sha1:")
	has(t, s.run(t, "create", "kustomization", "team", "--source", "GitRepository/team", "--path", "./deploy", "--prune", "--interval", longInterval, "--target-namespace", "shop"), "applied revision main@sha1:")
	s.kube.In("shop").Run(t, "get", "configmap", "team")
	s.shows(t, []string{"get", "all"}, "kustomization/team", "True")

	has(t, s.run(t, "delete", "kustomization", "team", "--silent"), "kustomization deleted")
	s.gone(t, "shop", "configmap/team")
	has(t, s.run(t, "delete", "source", "git", "team", "--silent"), "source git deleted")
	s.gone(t, "flux-system", "gitrepository/team")

	// What Git declares comes back when it is deleted by hand.
	s.run(t, "delete", "kustomization", "apps", "--silent")
	s.wait(t, "the Kustomization that Git declares to be back", func() error {
		out, err := s.try(t.Context(), "get", "kustomizations", "apps")
		if err == nil && !hasLine(out, "apps", s.revision(t), "True") {
			err = errors.New(out)
		}
		return err
	})
	s.wait(t, "its objects to be back", func() error {
		_, err := s.kube.In("shop").Output(t.Context(), "get", "deployment", "hello")
		return err
	})
	s.kube.In("shop").Rollout(t, patience, "deployment/hello")
}

// teamRepository makes an unsigned repository beside the site's.
func (s *site) teamRepository(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	bare := filepath.Join(filepath.Dir(s.repo.Bare), "team.git")
	if err := os.MkdirAll(filepath.Join(tree, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "deploy", "team.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: team}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch", "main", tree},
		{"-C", tree, "add", "--all"},
		{"-C", tree, "commit", "--quiet", "-m", "What the team deploys"},
		{"clone", "--quiet", "--bare", tree, bare},
	} {
		s.repo.Git(t, args...)
	}
	return bare
}
