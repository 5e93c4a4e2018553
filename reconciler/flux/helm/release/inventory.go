package release

import (
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/object"
	v2 "github.com/fluxcd/helm-controller/api/v2"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	helm "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// objectsOf returns the objects of a release as they were applied: without
// hooks, and with the namespace that they went to.
func objectsOf(r *helm.Release, mapper meta.RESTMapper) ([]*unstructured.Unstructured, error) {
	all, err := ssautil.ReadObjects(strings.NewReader(r.Manifest))
	if err != nil {
		return nil, fmt.Errorf("read the manifest of release %s.v%d: %w", r.Name, r.Version, err)
	}
	var out []*unstructured.Unstructured
	for _, o := range all {
		if _, hook := o.GetAnnotations()[helm.HookAnnotation]; hook {
			continue
		}
		if o.GetNamespace() == "" && namespaced(o, mapper) {
			o.SetNamespace(r.Namespace)
		}
		out = append(out, o)
	}
	return out, nil
}

// namespaced tells whether an object's kind has namespaces. A kind that is gone
// has none, as far as anybody can tell.
func namespaced(o *unstructured.Unstructured, mapper meta.RESTMapper) bool {
	gvk := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	return err == nil && mapping.Scope.Name() == meta.RESTScopeNameNamespace
}

// inventoryOf lists what a release made, for the status.
func inventoryOf(r *helm.Release, c *chart.Chart, mapper meta.RESTMapper) (*v2.ResourceInventory, error) {
	objects, err := objectsOf(r, mapper)
	if err != nil {
		return nil, err
	}
	for _, crd := range c.CRDObjects() {
		definitions, err := ssautil.ReadObjects(strings.NewReader(string(crd.File.Data)))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", crd.Filename, err)
		}
		objects = append(objects, definitions...)
	}
	inventory := &v2.ResourceInventory{Entries: make([]v2.ResourceRef, 0, len(objects))}
	for _, o := range objects {
		inventory.Entries = append(inventory.Entries, v2.ResourceRef{
			ID: object.UnstructuredToObjMetadata(o).String(), Version: o.GroupVersionKind().Version,
		})
	}
	return inventory, nil
}
