package build_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/tree"
)

const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"

// repository is directories of four objects each; kustomized says that they have
// a kustomization.
func repository(directories int, kustomized bool) files {
	out := files{}
	for i := range directories {
		dir := fmt.Sprintf("apps/%03d/", i)
		out[dir+"deployment.yaml"] = deployment
		out[dir+"service.yaml"] = service
		out[dir+"config.yaml"] = configMap
		out[dir+"account.yaml"] = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n"
		if kustomized {
			out[dir+"kustomization.yaml"] = "resources: [deployment.yaml, service.yaml, config.yaml, account.yaml]\n"
		}
	}
	return out
}

// BenchmarkBuild is 500 directories of 4 objects per operation.
func BenchmarkBuild(b *testing.B) {
	patch := []fluxkustomize.Patch{{Patch: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, args: [x]}]}}}\n"}}
	for name, c := range map[string]struct {
		kustomized bool
		spec       func(*kustomizev1.KustomizationSpec)
		variables  map[string]string
	}{
		"plain":            {false, func(*kustomizev1.KustomizationSpec) {}, nil},
		"plain-substitute": {false, func(*kustomizev1.KustomizationSpec) {}, map[string]string{"a": "b"}},
		"kustomization":    {true, func(*kustomizev1.KustomizationSpec) {}, nil},
		"namespace":        {false, func(s *kustomizev1.KustomizationSpec) { s.TargetNamespace = "team" }, nil},
		"patch":            {true, func(s *kustomizev1.KustomizationSpec) { s.Patches = patch }, nil},
		"namespace-and-image": {true, func(s *kustomizev1.KustomizationSpec) {
			s.TargetNamespace = "x"
			s.Images = []fluxkustomize.Image{{Name: "web", NewTag: "1"}}
		}, nil},
	} {
		b.Run(name, func(b *testing.B) {
			in := repository(500, c.kustomized).fs()
			b.ReportAllocs()
			for b.Loop() {
				for i := range 500 {
					o := build.Options{Dir: fmt.Sprintf("apps/%03d", i), Kustomization: spec(c.spec), Substitute: c.variables}
					result, err := build.Build(context.Background(), in, o)
					if err != nil || len(result.Objects) != 4 {
						b.Fatal(len(result.Objects), err)
					}
				}
			}
		})
	}
}

// BenchmarkSame asks whether a build of four objects would be another after a
// commit that changed something else, in a repository of 10 000 files.
func BenchmarkSame(b *testing.B) {
	r := gittest.NewRepo(b)
	for name, text := range repository(2000, true) {
		at := filepath.Join(r.Dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	r.Git("add", "-A")
	first := r.Commit(nil, "first")
	r.Write("apps/007/config.yaml", strings.Replace(configMap, "k: v", "k: w", 1))
	second := r.Commit(nil, "second")
	m, err := mirror.Open(filepath.Join(b.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Fetch(context.Background(), mirror.Remote{URL: r.Dir, Branch: "main"}); err != nil {
		b.Fatal(err)
	}
	show := func(id string) fs.FS {
		c, err := signers.ParseCommit(r.Raw(id))
		if err != nil {
			b.Fatal(err)
		}
		return tree.New(m, c.Tree, time.Unix(1, 0))
	}
	result, err := build.Build(context.Background(), show(first), build.Options{Dir: "apps/1234"})
	if err != nil {
		b.Fatal(err)
	}
	after := show(second)
	for b.Loop() {
		if !result.Reads.Same(after) {
			b.Fatal("not the same")
		}
	}
}
