package build

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
)

// kustomization adds the objects that kustomize builds from dir. overlay are
// files that are seen instead of those of the commit.
func (b *builder) kustomization(dir string, overlay map[string][]byte) {
	disk := &filesystem{builder: b, overlay: overlay, roles: map[string]role{}}
	if disk.isEmpty(dir) {
		return
	}
	resources, err := runKustomize(disk, dir)
	// What the guard saw is the cause of whatever kustomize made of it.
	if disk.refused != nil {
		b.fail(disk.refused)
		return
	}
	if err != nil {
		b.fail(&Error{File: dir, Problem: "kustomize cannot build it: " + b.secrets.redact(oneLine(err)), Remedy: "try it with: kustomize build " + dir})
		return
	}
	for _, r := range resources.Resources() {
		u := &unstructured.Unstructured{}
		raw, err := r.MarshalJSON()
		if err == nil {
			err = unstructuredFrom(raw, u)
		}
		if err != nil {
			b.fail(&Error{File: dir, Object: r.CurId().String(), Problem: b.secrets.redact(err.Error())})
			continue
		}
		b.take(dir, u)
	}
}

// isEmpty reports whether the kustomization of a directory says nothing.
func (f *filesystem) isEmpty(dir string) bool {
	for _, base := range kustomizationNames {
		name := path.Join(dir, base)
		if data, ok := f.overlay[name]; ok {
			return isEmpty(data)
		}
		if info, err := fs.Stat(f.builder.fsys, name); err != nil || info.IsDir() {
			continue
		}
		data, err := f.builder.readFile(name)
		return err == nil && isEmpty(data)
	}
	return false
}

func runKustomize(disk *filesystem, dir string) (resources resmap.ResMap, err error) {
	schema.acquire()
	defer func() { schema.release(disk.ownSchema) }()
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
