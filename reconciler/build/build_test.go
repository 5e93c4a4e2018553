package build_test

import (
	"context"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/build"
)

type files map[string]string

func (f files) fs() fs.FS {
	out := fstest.MapFS{}
	for name, text := range f {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func names(objects []*unstructured.Unstructured) string {
	var out []string
	for _, o := range objects {
		out = append(out, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
	}
	return strings.Join(out, ", ")
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"

func TestBuild(t *testing.T) {
	for name, c := range map[string]struct {
		files files
		want  string
	}{
		"plain directory with sub-directories": {
			files{"site/a.yaml": configMap, "site/sub/b.yml": strings.Replace(configMap, "name: a", "name: b", 1), "site/notes.txt": "x", "site/.hidden.yaml": "]["},
			"ConfigMap /a, ConfigMap /b",
		},
		"several documents and a list": {
			files{"site/a.yaml": "# nothing\n---\n" + configMap + "---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n"},
			"ConfigMap /a, Secret /s",
		},
		"bothy's own kinds are left out": {
			files{"site/a.yaml": configMap, "site/cluster.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata: {name: x}\n", "site/machines/m.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: m}\n"},
			"ConfigMap /a",
		},
		"kustomization with a base elsewhere in the repository": {
			files{
				"site/kustomization.yaml":     "namespace: web\nnamePrefix: x-\nresources: [../base]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n    - {op: replace, path: /data/k, value: w}\n",
				"base/kustomization.yaml":     "resources: [a.yaml]\nconfigMapGenerator:\n- name: gen\n  files: [f.txt]\n  literals: ['url=https://example.com/x']\n",
				"base/a.yaml":                 configMap,
				"base/f.txt":                  "text",
				"site/ignored-by-kustomize.y": "",
			},
			"ConfigMap web/x-a, ConfigMap web/x-gen-9t49t54h58",
		},
		"empty kustomization": {files{"site/kustomization.yaml": "resources: []\n"}, ""},
		"sub-directory with a kustomization in a plain one": {
			files{"site/a.yaml": configMap, "site/sub/kustomization.yaml": "namePrefix: y-\nresources: [b.yaml]\n", "site/sub/b.yaml": configMap},
			"ConfigMap /a, ConfigMap /y-a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := build.Build(context.Background(), c.files.fs(), build.Options{Dir: "site"})
			if err != nil {
				t.Fatal(err)
			}
			got := names(result.Objects)
			if i := strings.Index(got, "x-gen-"); i >= 0 {
				got, c.want = got[:i], c.want[:strings.Index(c.want, "x-gen-")]
			}
			if got != c.want {
				t.Errorf("built %q, want %q", got, c.want)
			}
		})
	}
}

func TestErrorsNameFileAndObject(t *testing.T) {
	for name, c := range map[string]struct {
		files files
		want  []string
	}{
		"no such directory": {files{"other/a.yaml": configMap}, []string{"site: is not a directory"}},
		"bad YAML":          {files{"site/a.yaml": "a: [\n"}, []string{"site/a.yaml: ", "line 1"}},
		"duplicate key":     {files{"site/a.yaml": configMap + "data: {}\n"}, []string{"site/a.yaml: ", `key "data" already set`}},
		"no kind":           {files{"site/a.yaml": "apiVersion: v1\nmetadata: {name: a}\n"}, []string{"site/a.yaml: a: is not a Kubernetes object"}},
		"no name":           {files{"site/a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n"}, []string{"site/a.yaml: Pod: has no metadata.name"}},
		"twice":             {files{"site/a.yaml": configMap, "site/b.yaml": configMap}, []string{"site/b.yaml: ConfigMap a: is also in site/a.yaml"}},
		"all problems":      {files{"site/a.yaml": "a: [\n", "site/b.yaml": "x: 1\n"}, []string{"site/a.yaml", "site/b.yaml"}},
		"encrypted":         {files{"site/a.yaml": configMap + "sops: {}\n"}, []string{"ConfigMap a: is encrypted with SOPS"}},
		"an alias of itself": {
			files{"site/kustomization.yaml": "resources: [a.yaml]\n", "site/a.yaml": configMap + "x: &x\n  y: *x\n"},
			[]string{"site/a.yaml: ", "contains itself", "write it without aliases"},
		},
		"missing resource": {files{"site/kustomization.yaml": "resources: [gone.yaml]\n"}, []string{"site: kustomize cannot build it", "gone.yaml"}},
		"bomb": {
			files{"site/a.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n"},
			[]string{"site/a.yaml", "excessive aliasing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := build.Build(context.Background(), c.files.fs(), build.Options{Dir: "site"})
			if err == nil {
				t.Fatalf("built %s", names(result.Objects))
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

// TestKustomizeCannotLeaveTheCommit gives kustomize every reference known to
// make it read something else than the commit.
func TestKustomizeCannotLeaveTheCommit(t *testing.T) {
	secret := t.TempDir() + "/secret.yaml"
	if err := os.WriteFile(secret, []byte(configMap), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, kustomization := range map[string]string{
		"https resource":         "resources: ['https://127.0.0.1:1/x.yaml']",
		"capital field name":     "Resources: ['https://127.0.0.1:1/x.yaml']",
		"git resource":           "resources: ['git::https://127.0.0.1:1/a/b']",
		"github shorthand":       "resources: ['github.com/a/b']",
		"scp style":              "resources: ['git@127.0.0.1:a/b']",
		"file URL":               "resources: ['file://" + secret + "']",
		"ssh URL":                "resources: ['ssh://127.0.0.1/a/b']",
		"remote component":       "components: ['https://127.0.0.1:1/a/b']",
		"remote base":            "bases: ['https://127.0.0.1:1/a/b']",
		"remote patch":           "resources: [a.yaml]\npatches: [{path: 'https://127.0.0.1:1/p'}]",
		"remote strategic patch": "resources: [a.yaml]\npatchesStrategicMerge: ['https://127.0.0.1:1/p']",
		"remote generator file":  "configMapGenerator: [{name: x, files: ['https://127.0.0.1:1/f']}]",
		"remote keyed file":      "secretGenerator: [{name: x, files: ['k=https://127.0.0.1:1/f']}]",
		"remote env file":        "configMapGenerator: [{name: x, envs: ['https://127.0.0.1:1/f']}]",
		"remote openapi":         "resources: [a.yaml]\nopenapi: {path: 'https://127.0.0.1:1/f'}",
		"remote crd":             "resources: [a.yaml]\ncrds: ['https://127.0.0.1:1/f']",
		"remote configuration":   "resources: [a.yaml]\nconfigurations: ['https://127.0.0.1:1/f']",
		"remote replacement":     "resources: [a.yaml]\nreplacements: [{path: 'https://127.0.0.1:1/f'}]",
		"remote transformer":     "resources: [a.yaml]\ntransformers: ['https://127.0.0.1:1/f']",
		"inline transformer":     "resources: [a.yaml]\ntransformers:\n- |-\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: https://127.0.0.1:1/f\n",
		"transformer file":       "resources: [a.yaml]\ntransformers: [t.yaml]",
		"helm chart":             "helmCharts: [{name: x, repo: 'https://127.0.0.1:1'}]",
		"second document":        "resources: []\n---\nresources: ['https://127.0.0.1:1/x.yaml']",
		"absolute path":          "resources: ['" + secret + "']",
		"path above the root":    "resources: ['../../../../../../../../../.." + secret + "']",
		"generator above root":   "configMapGenerator: [{name: x, files: ['../../../../../../../../..'" + secret + "']}]",
		"exec function":          "resources: [a.yaml]\ntransformers: [exec.yaml]",
		"container function":     "resources: [a.yaml]\ntransformers: [container.yaml]",
		"legacy exec plugin":     "resources: [a.yaml]\ngenerators: [plugin.yaml]",
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			result, err := build.Build(context.Background(), files{
				"site/kustomization.yaml": kustomization + "\n",
				"site/a.yaml":             configMap,
				"site/t.yaml":             "apiVersion: v1\nkind: List\nitems:\n- apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: https://127.0.0.1:1/f\n",
				"site/exec.yaml":          "apiVersion: x/v1\nkind: Y\nmetadata:\n  name: y\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: /bin/true}\n",
				"site/container.yaml":     "apiVersion: x/v1\nkind: Y\nmetadata:\n  name: y\n  annotations:\n    config.kubernetes.io/function: |\n      container: {image: x}\n",
				"site/plugin.yaml":        "apiVersion: someteam.example.com/v1\nkind: Sed\nmetadata: {name: y}\n",
			}.fs(), build.Options{Dir: "site"})
			if err == nil {
				t.Fatalf("built %s", names(result.Objects))
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s: something was waited for", took)
			}
			if strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "dial tcp") {
				t.Errorf("a connection was tried: %v", err)
			}
		})
	}
}

func TestExampleBuilds(t *testing.T) {
	result, err := build.Build(context.Background(), os.DirFS("../../examples/repo"), build.Options{Dir: "clusters/default"})
	if err != nil {
		t.Fatal(err)
	}
	got := names(result.Objects)
	for _, want := range []string{"Namespace /hello", "Deployment hello/hello", "Service hello/hello", "PodDisruptionBudget hello/hello"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
}
