package reconciler_test

import (
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler"
)

const gotkSync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata:
  name: flux-system
  namespace: flux-system
spec:
  interval: 1m
  url: ssh://git@git.example.org/fleet
  ref: {branch: main}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: flux-system
  namespace: flux-system
spec:
  interval: 10m
  path: ./clusters/default
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
  commonMetadata:
    labels: {team: hut}
  postBuild:
    substitute: {greeting: good morning}
`

const gotkComponents = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: kustomize-controller
  namespace: flux-system
  labels: {app.kubernetes.io/part-of: flux, app.kubernetes.io/instance: flux-system}
`

// TestRepositoryOfFlux boots what `flux bootstrap` leaves behind.
func TestRepositoryOfFlux(t *testing.T) {
	m := newMachine(t)
	m.Write("clusters/default/flux-system/gotk-sync.yaml", gotkSync)
	m.Write("clusters/default/flux-system/gotk-components.yaml", gotkComponents)
	m.Write("clusters/default/a.yaml", strings.NewReplacer("%s", "a", "%q", `"${greeting}"`).Replace(manifest))
	m.Commit(m.alice, "a repository of Flux")
	m.start()
	s := m.until("the objects to be sent", func(s reconciler.Status) bool { return s.Applied != nil && s.Applied.Commit == m.Head() })
	if s.FluxComponents != 1 {
		t.Errorf("%d of Flux's components are left out, want 1", s.FluxComponents)
	}
	if m.api.Get("/apis/apps/v1/namespaces/flux-system/deployments/kustomize-controller") != nil {
		t.Error("Flux's controller was applied")
	}
	if got := m.value("a"); got != "good morning" {
		t.Errorf("the substitution of the site's own Kustomization gave %q", got)
	}
	labels := m.api.Get("/api/v1/namespaces/default/configmaps/b")["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels["team"] != "hut" {
		t.Errorf("labels %v", labels)
	}
	if m.api.Get("/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/flux-system") == nil {
		t.Error("the site's own Kustomization is not in the cluster")
	}
}
