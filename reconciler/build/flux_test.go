package build_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	generator "github.com/fluxcd/pkg/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/reconciler/build"
)

const (
	deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: ghcr.io/org/web:v1
        env: [{name: A, value: "1"}]
      - name: proxy
        image: ghcr.io/org/proxy:v1
`
	namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
	values    = `# uses ${not_a_variable_in_a_comment:=x}
apiVersion: v1
kind: ConfigMap
metadata: {name: "values-${env}"}
data:
  number: "${number}"
  default: ${missing:=fallback}
  cut: ${env:0:2}
  empty: "x${undefined}x"
  escaped: $${kept}
---
apiVersion: v1
kind: Service
metadata: {name: svc}
spec:
  ports:
  - port: ${number}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: off
  annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}
data: {text: "${env}"}
---
apiVersion: v1
kind: ConfigMapList
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: item}
  data: {env: "${env}", number: "${number}"}
`
)

func spec(change func(*kustomizev1.KustomizationSpec)) *kustomizev1.Kustomization {
	k := &kustomizev1.Kustomization{}
	k.Name, k.Namespace = "test", "flux-system"
	k.Kind, k.APIVersion = kustomizev1.KustomizationKind, kustomizev1.GroupVersion.String()
	change(&k.Spec)
	return k
}

// TestBuildsAsFlux builds each case with Flux's own library too, on disk, and
// compares the objects.
func TestBuildsAsFlux(t *testing.T) {
	plain := files{
		"app/web.yaml": deployment, "app/sub/ns.yml": namespace, "app/sub/notes.txt": "x",
		"app/.hidden.yaml":                     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hidden}\n",
		"app/deep/kustomization.yaml":          "namePrefix: deep-\nresources: [cm.yaml]\n",
		"app/deep/cm.yaml":                     configMap,
		"app/deep/ignored.yaml":                "][",
		"app/local.yaml":                       "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: local, annotations: {config.kubernetes.io/local-config: 'true'}}\n",
		"app/bools.yaml":                       "apiVersion: example.com/v1\nkind: Odd\nmetadata: {name: odd}\nspec: {a: on, b: \"on\", c: yes, d: 1e3, e: 0777, f: 1_000, g: ~, h: 0x1F, i: 12345678901234567, j: 1.0, k: 2024-05-06, l: 1:30, m: .5, n: !!str 5, o: 12:30:45, p: 0o17, q: +1, r: 2024-05-06T07:08:09.5Z}\n",
		"parts/one/kustomization.yaml":         "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nlabels: [{pairs: {part: one}}]\n",
		"parts/two/kustomization.yaml":         "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [two.yaml]\n",
		"parts/two/two.yaml":                   strings.Replace(configMap, "name: a", "name: two", 1),
		"overlay/kustomization.yml":            "namePrefix: own-\nresources: [../app/web.yaml]\nimages: [{name: ghcr.io/org/web, newTag: v5, digest: ''}, {name: ghcr.io/org/proxy, digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'}]\nconfigMapGenerator: [{name: gen, literals: [a=b]}]\n",
		"empty/kustomization.yaml":             "resources: []\n",
		"empty/other.yaml":                     "][",
		"capital/Kustomization":                "resources: [cm.yaml]\n",
		"capital/cm.yaml":                      configMap,
		"values/values.yaml":                   values,
		"values-kustomized/values.yaml":        values,
		"values-kustomized/ns.yaml":            namespace,
		"values-kustomized/kustomization.yaml": "resources: [values.yaml, ns.yaml]\n",
		"nothing/readme.md":                    "x",
	}
	patches := []fluxkustomize.Patch{
		{Patch: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n      - name: proxy\n        args: [--quiet]\n"},
		{Patch: "- {op: add, path: /spec/replicas, value: 3}\n", Target: &fluxkustomize.Selector{Kind: "Deployment", LabelSelector: "app=web"}},
		{Patch: "- {op: add, path: /metadata/annotations, value: {seen: 'yes'}}\n", Target: &fluxkustomize.Selector{Group: "apps", Version: "v1", Kind: "Deployment", Name: "w.*"}},
	}
	for name, c := range map[string]struct {
		dir   string
		spec  func(*kustomizev1.KustomizationSpec)
		count int
	}{
		"nothing asked":     {"app", func(*kustomizev1.KustomizationSpec) {}, 5},
		"target namespace":  {"app", func(s *kustomizev1.KustomizationSpec) { s.TargetNamespace = "team" }, 5},
		"prefix and suffix": {"app", func(s *kustomizev1.KustomizationSpec) { s.NamePrefix, s.NameSuffix = "p-", "-s" }, 5},
		"patches":           {"app", func(s *kustomizev1.KustomizationSpec) { s.Patches = patches }, 5},
		"images": {"app", func(s *kustomizev1.KustomizationSpec) {
			s.Images = []fluxkustomize.Image{{Name: "ghcr.io/org/web", NewName: "example.com/web", NewTag: "v2"}}
		}, 5},
		"images merged": {"overlay", func(s *kustomizev1.KustomizationSpec) {
			s.Images = []fluxkustomize.Image{{Name: "ghcr.io/org/web", NewName: "example.com/web"}, {Name: "ghcr.io/org/proxy", NewTag: "v9"}}
		}, 2},
		"overlay with prefix": {"overlay", func(s *kustomizev1.KustomizationSpec) {
			s.NamePrefix, s.TargetNamespace = "flux-", "team"
			s.Patches = patches[1:2]
		}, 2},
		"components": {"app", func(s *kustomizev1.KustomizationSpec) { s.Components = []string{"../parts/one", "../parts/two"} }, 6},
		"components, one missing": {"app", func(s *kustomizev1.KustomizationSpec) {
			s.Components = []string{"../parts/one", "../parts/gone"}
			s.IgnoreMissingComponents = true
		}, 5},
		"common metadata": {"app", func(s *kustomizev1.KustomizationSpec) {
			s.CommonMetadata = &kustomizev1.CommonMetadata{Labels: map[string]string{"app": "common", "l": "1"}, Annotations: map[string]string{"a": "1"}}
		}, 5},
		"build metadata": {"overlay", func(s *kustomizev1.KustomizationSpec) {
			s.BuildMetadata = []kustomizev1.BuildMetadataOption{"originAnnotations", "transformerAnnotations"}
		}, 2},
		"empty":                          {"empty", func(*kustomizev1.KustomizationSpec) {}, 0},
		"empty with namespace":           {"empty", func(s *kustomizev1.KustomizationSpec) { s.TargetNamespace = "team" }, 0},
		"no manifests":                   {"nothing", func(*kustomizev1.KustomizationSpec) {}, 0},
		"no manifests with namespace":    {"nothing", func(s *kustomizev1.KustomizationSpec) { s.TargetNamespace = "team" }, 0},
		"file named Kustomization":       {"capital", func(s *kustomizev1.KustomizationSpec) { s.NamePrefix = "p-" }, 1},
		"substitution":                   {"values", substitute, 4},
		"substitution after kustomize":   {"values-kustomized", substitute, 5},
		"substitution with fields":       {"values", func(s *kustomizev1.KustomizationSpec) { substitute(s); s.TargetNamespace = "team" }, 4},
		"no substitution, no variables":  {"app", func(s *kustomizev1.KustomizationSpec) { s.PostBuild = &kustomizev1.PostBuild{} }, 5},
		"the root of the files, ignored": {".", func(*kustomizev1.KustomizationSpec) {}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			k := spec(c.spec)
			in := plain
			if c.count < 0 {
				in = files{"a.yaml": configMap, ".sops.yaml": "x: 1\n", "b/cm.yaml": strings.Replace(configMap, "name: a", "name: b", 1)}
				c.count = 2
			}
			o := build.Options{Dir: c.dir, Kustomization: k}
			if p := k.Spec.PostBuild; p != nil && len(p.Substitute) > 0 {
				o.Substitute = p.Substitute
			}
			result, err := build.Build(context.Background(), in.fs(), o)
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Objects) != c.count {
				t.Errorf("%d objects, want %d: %s", len(result.Objects), c.count, names(result.Objects))
			}
			delete(in, ".sops.yaml") // Flux leaves it out of the artifact
			compare(t, result.Objects, asFlux(t, in, c.dir, k))
		})
	}
}

func substitute(s *kustomizev1.KustomizationSpec) {
	s.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"env": "prod", "number": "8\n080"}}
}

// asFlux builds with Flux's library, as its controller does.
func asFlux(t *testing.T, in files, dir string, k *kustomizev1.Kustomization) []*unstructured.Unstructured {
	t.Helper()
	root := t.TempDir()
	for name, text := range in {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(k)
	if err != nil {
		t.Fatal(err)
	}
	u := unstructured.Unstructured{Object: content}
	at := filepath.Join(root, dir)
	if _, err := generator.NewGenerator(root, u).WriteFile(at); err != nil {
		t.Fatalf("Flux: %v", err)
	}
	resources, err := generator.SecureBuild(root, at, false)
	if err != nil {
		t.Fatalf("Flux: %v", err)
	}
	var out []*unstructured.Unstructured
	for _, r := range resources.Resources() {
		if k.Spec.PostBuild != nil {
			replaced, err := generator.SubstituteVariables(context.Background(), nil, u, r, generator.SubstituteWithDryRun(true))
			if err != nil {
				t.Fatalf("Flux: %v", err)
			}
			if replaced != nil {
				r = replaced
			}
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		o := &unstructured.Unstructured{}
		raw, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		if common := k.Spec.CommonMetadata; common != nil {
			labels, annotations := o.GetLabels(), o.GetAnnotations()
			if labels == nil {
				labels = map[string]string{}
			}
			if annotations == nil {
				annotations = map[string]string{}
			}
			maps.Copy(labels, common.Labels)
			maps.Copy(annotations, common.Annotations)
			o.SetLabels(labels)
			o.SetAnnotations(annotations)
		}
		out = append(out, o)
	}
	return out
}

func compare(t *testing.T, got, want []*unstructured.Unstructured) {
	t.Helper()
	byName := func(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
		out := map[string]*unstructured.Unstructured{}
		for _, o := range objects {
			out[fmt.Sprintf("%s %s/%s", o.GroupVersionKind(), o.GetNamespace(), o.GetName())] = o
		}
		return out
	}
	have, need := byName(got), byName(want)
	if a, b := slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(need)); !slices.Equal(a, b) {
		t.Fatalf("objects %q, Flux makes %q", a, b)
	}
	for key, o := range have {
		if !reflect.DeepEqual(o.Object, need[key].Object) {
			a, _ := yaml.Marshal(o)
			b, _ := yaml.Marshal(need[key])
			t.Errorf("%s:\n%s\nFlux makes\n%s", key, a, b)
		}
	}
}

func TestFieldsThatAreRefused(t *testing.T) {
	in := files{"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": configMap, "vars/a.yaml": values}
	for name, c := range map[string]struct {
		options build.Options
		want    string
	}{
		"remote component":   {build.Options{Dir: "app", Kustomization: spec(func(s *kustomizev1.KustomizationSpec) { s.Components = []string{"https://example.com/x"} })}, "not a relative path in the repository"},
		"absolute component": {build.Options{Dir: "app", Kustomization: spec(func(s *kustomizev1.KustomizationSpec) { s.Components = []string{"/x"} })}, "not a relative path in the repository"},
		"missing component":  {build.Options{Dir: "app", Kustomization: spec(func(s *kustomizev1.KustomizationSpec) { s.Components = []string{"../gone"} })}, "gone"},
		"patch without object": {build.Options{Dir: "app", Kustomization: spec(func(s *kustomizev1.KustomizationSpec) {
			s.Patches = []fluxkustomize.Patch{{Patch: "apiVersion: v1\nkind: Secret\nmetadata: {name: gone}\n"}}
		})}, "app: kustomize cannot build it"},
		"no such directory":          {build.Options{Dir: "gone", Kustomization: spec(func(*kustomizev1.KustomizationSpec) {})}, "correct spec.path"},
		"out of the files":           {build.Options{Dir: "../../etc", Kustomization: spec(func(*kustomizev1.KustomizationSpec) {})}, "etc: is not a directory"},
		"strict":                     {build.Options{Dir: "vars", Substitute: map[string]string{"env": "x"}, StrictSubstitute: true}, "vars/a.yaml: ConfigMap values-${env}: variables cannot be substituted"},
		"bad variable name":          {build.Options{Dir: "vars", Substitute: map[string]string{"a-b": "x"}}, `the variable "a-b"`},
		"value that breaks the YAML": {build.Options{Dir: "vars", Substitute: map[string]string{"env": "x", "number": "*s3cret"}}, "is not a valid object after its variables were substituted"},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := build.Build(context.Background(), in.fs(), c.options)
			if err == nil {
				t.Fatalf("built %s", names(result.Objects))
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells a value: %v", err)
			}
		})
	}
}

// TestSubstituteAlways is substituteStrategy Always: no variables, and defaults
// count.
func TestSubstituteAlways(t *testing.T) {
	in := files{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '${x:=default}'}\n"}
	for want, variables := range map[string]map[string]string{"default": {}, "${x:=default}": nil} {
		result, err := build.Build(context.Background(), in.fs(), build.Options{Substitute: variables})
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := unstructured.NestedString(result.Objects[0].Object, "data", "k"); got != want {
			t.Errorf("with %v: %q, want %q", variables, got, want)
		}
	}
}

func TestFluxComponents(t *testing.T) {
	labels := "labels: {app.kubernetes.io/part-of: flux, app.kubernetes.io/instance: flux-system}"
	in := files{
		"gotk-components.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system, " + labels + "}\n" +
			"---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gitrepositories.source.toolkit.fluxcd.io, " + labels + "}\n" +
			"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: source-controller, namespace: flux-system, " + labels + "}\n" +
			"---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: cluster-reconciler-flux-system, " + labels + "}\n" +
			"---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: critical-pods-flux-system, namespace: flux-system, " + labels + "}\n",
		"gotk-sync.yaml": "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: flux-system, namespace: flux-system, " + labels + "}\n" +
			"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: mine, namespace: flux-system}\n" +
			"---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.example.com}\n",
	}
	result, err := build.Build(context.Background(), in.fs(), build.Options{Skip: build.FluxComponents})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(result.Objects), "Namespace /flux-system, Kustomization flux-system/flux-system, Deployment flux-system/mine, CustomResourceDefinition /things.example.com"; got != want {
		t.Errorf("kept %s\nwant %s", got, want)
	}
	if len(result.Skipped) != 4 || result.Skipped[0].Reason != "bothy serves the Flux API itself" {
		t.Errorf("skipped %v", result.Skipped)
	}
}
