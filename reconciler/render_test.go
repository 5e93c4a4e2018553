package reconciler

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRenderFollowsKustomizationsWithoutACluster(t *testing.T) {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"clusters/a/kustomization.yaml": "resources: [vars.yaml, apps.yaml]\n",
		"clusters/a/vars.yaml":          "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vars, namespace: flux-system}\ndata: {tag: \"7\"}\n",
		"clusters/a/apps.yaml": `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec:
  path: ./apps
  prune: true
  interval: 1m
  sourceRef: {kind: GitRepository, name: flux-system}
  postBuild: {substituteFrom: [{kind: ConfigMap, name: vars}]}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: gone, namespace: flux-system}
spec: {path: ./gone, prune: true, interval: 1m, sourceRef: {kind: GitRepository, name: flux-system}}
`,
		"apps/kustomization.yaml": "resources: [pod.yaml]\n",
		"apps/pod.yaml":           "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: \"example.org/app:${tag}\"}]}\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	got, err := Render(t.Context(), files, "clusters/a")
	if err != nil {
		t.Fatal(err)
	}
	var images []string
	for _, o := range got.Objects {
		if o.GetKind() == "Pod" {
			c := o.Object["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
			images = append(images, c["image"].(string))
		}
	}
	if !slices.Equal(images, []string{"example.org/app:7"}) {
		t.Errorf("images %q", images)
	}
	if len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "flux-system/gone") {
		t.Errorf("problems %q", got.Problems)
	}
}
