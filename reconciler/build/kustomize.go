package build

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// kustomizeLock serialises builds: kustomize keeps its OpenAPI schema in a
// package variable that is not safe for concurrent use.
var kustomizeLock sync.Mutex

// kustomization adds the objects that kustomize builds from dir.
func (b *builder) kustomization(dir string) {
	disk := &filesystem{builder: b}
	resources, err := runKustomize(disk, dir)
	// What the guard saw is the cause of whatever kustomize made of it.
	if disk.refused != nil {
		b.fail(disk.refused)
		return
	}
	if err != nil {
		b.fail(&Error{File: dir, Problem: "kustomize cannot build it: " + oneLine(err), Remedy: "try it with: kustomize build " + dir})
		return
	}
	for _, r := range resources.Resources() {
		u := &unstructured.Unstructured{}
		raw, err := r.MarshalJSON()
		if err == nil {
			err = unstructuredFrom(raw, u)
		}
		if err != nil {
			b.fail(&Error{File: dir, Object: r.CurId().String(), Problem: err.Error()})
			continue
		}
		b.add(dir, u)
	}
}

func runKustomize(disk *filesystem, dir string) (resources resmap.ResMap, err error) {
	kustomizeLock.Lock()
	defer kustomizeLock.Unlock()
	// The parsed schema takes tens of megabytes and is needed seconds a day.
	defer openapi.ResetOpenAPI()
	// kustomize is known to panic on some malformed input.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("kustomize panicked: %v", p)
		}
	}()
	options := &krusty.Options{
		Reorder: krusty.ReorderOptionNone,
		// Files of other directories may be used as in Flux; the adapter ends at
		// the repository's root.
		LoadRestrictions: kustypes.LoadRestrictionsNone,
		PluginConfig:     kustypes.DisabledPluginConfig(),
	}
	resources, err = krusty.MakeKustomizer(options).Run(disk, absolute(dir))
	if err == nil && resources == nil {
		err = errors.New("no result")
	}
	return resources, err
}

// oneLine shortens kustomize's errors, which repeat whole files.
func oneLine(err error) string {
	const limit = 600
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > limit {
		text = text[:limit] + " …"
	}
	return text
}
