package build_test

import (
	"context"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/build"
)

// FuzzBuild builds a kustomization and a plain manifest of any content. It looks
// for panics, for input that takes long, and for connections.
func FuzzBuild(f *testing.F) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n"
	for _, seed := range [][2]string{
		{"resources: [a.yaml]\n", configMap},
		{"namePrefix: x-\nresources: [a.yaml]\npatches: [{patch: '[]'}]\n", deployment},
		{"resources: ['https://127.0.0.1:1/x']\n", values},
		{"configMapGenerator: [{name: x, files: [a.yaml], envs: [a.yaml]}]\n", "A=B\n"},
		{bomb, bomb},
		// Aliases of themselves overflow the stack of whoever unfolds them.
		{"a: &a\n  b: *a\n", "a: &a\n  b: *a\n"},
		{"resources: [a.yaml]\n", configMap + "x: &x\n  y: *x\n"},
		{"resources: [a.yaml]\npatches:\n- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: a}\n    data: &a\n      b: *a\n", configMap},
		{"resources: [a.yaml]\ntransformers:\n- |\n  a: &a [*a]\n", configMap},
		{strings.Repeat("[", 10_000), strings.Repeat("{a: ", 10_000)},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, kustomization, manifest string) {
		in := files{"k/kustomization.yaml": kustomization, "k/a.yaml": manifest, "p/a.yaml": manifest}
		for _, dir := range []string{"k", "p"} {
			for _, k := range []*kustomizev1.Kustomization{nil, spec(func(s *kustomizev1.KustomizationSpec) { s.NamePrefix = "p-" })} {
				began := time.Now()
				result, err := build.Build(context.Background(), in.fs(), build.Options{Dir: dir, Kustomization: k, Substitute: map[string]string{"env": "x"}})
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("took %s", took)
				}
				if err == nil {
					for _, o := range result.Objects {
						if o.GetName() == "" || o.GetKind() == "" {
							t.Errorf("built %v", o.Object)
						}
					}
					continue
				}
				if len(result.Objects) > 0 {
					t.Error("objects beside an error")
				}
				if strings.Contains(err.Error(), "dial tcp") {
					t.Errorf("a connection was tried: %v", err)
				}
			}
		}
	})
}
