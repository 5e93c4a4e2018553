package build_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/build"
)

// TestOwnSchemaStaysWithItsBuild: a kustomization that brings an OpenAPI schema
// must not change how others merge lists, whatever runs before and beside it.
func TestOwnSchemaStaysWithItsBuild(t *testing.T) {
	own := files{
		"kustomization.yaml": "resources: [a.yaml]\nopenapi: {path: schema.json}\npatches: [{path: p.yaml}]\n",
		"schema.json":        `{"definitions":{"v1.Deployment":{"type":"object","x-kubernetes-group-version-kind":[{"group":"apps","version":"v1","kind":"Deployment"}],"properties":{"spec":{"type":"object","properties":{"template":{"type":"object","properties":{"spec":{"type":"object","properties":{"containers":{"type":"array","items":{"type":"object"}}}}}}}}}}}}`,
		"a.yaml":             deployment,
		"p.yaml":             "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: proxy, args: [x]}]}}}\n",
	}
	usual := files{"kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n", "a.yaml": own["a.yaml"], "p.yaml": own["p.yaml"]}
	containers := func(f files) (int, error) {
		result, err := build.Build(context.Background(), f.fs(), build.Options{})
		if err != nil {
			return 0, err
		}
		list, _, err := unstructured.NestedSlice(result.Objects[0].Object, "spec", "template", "spec", "containers")
		return len(list), err
	}
	var group sync.WaitGroup
	errs := make(chan error, 40)
	for i := range 40 {
		group.Go(func() {
			in, want := usual, 2 // merged by name
			if i%2 == 0 {
				in, want = own, 1 // replaced, for its schema knows no key
			}
			if got, err := containers(in); err != nil || got != want {
				errs <- fmt.Errorf("%d containers, want %d: %w", got, want, err)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
