package fakeapi

import (
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

// apply applies an object by force.
func (s *Server) apply(path string, body map[string]any, manager string, dryRun bool) (map[string]any, *metav1.Status) {
	if err := addressed(path, body); err != nil {
		return nil, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	applied := &unstructured.Unstructured{Object: body}
	live := s.live(path, applied)
	fields, err := s.fieldManager(applied.GroupVersionKind())
	if err != nil {
		return nil, status(http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
	}
	next, err := fields.Apply(live, applied, manager, true)
	if err != nil {
		return nil, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	return s.finish(path, runtime.DeepCopyJSON(next.(*unstructured.Unstructured).Object), dryRun)
}

// update replaces an object.
func (s *Server) update(path string, body map[string]any, manager string, dryRun bool) (map[string]any, *metav1.Status) {
	next := &unstructured.Unstructured{Object: body}
	live := s.live(path, next)
	if refusal := s.prepare(path, body); refusal != nil {
		return nil, refusal
	}
	fields, err := s.fieldManager(next.GroupVersionKind())
	if err != nil {
		return nil, status(http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
	}
	merged, err := fields.Update(live, next, manager)
	if err != nil {
		return nil, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	return s.finish(path, runtime.DeepCopyJSON(merged.(*unstructured.Unstructured).Object), dryRun)
}

func (s *Server) finish(path string, o map[string]any, dryRun bool) (map[string]any, *metav1.Status) {
	if refusal := s.prepare(path, o); refusal != nil {
		return nil, refusal
	}
	if dryRun {
		s.complete(o, s.objects[path])
		return o, nil
	}
	return s.store(path, o), nil
}

// live is the object that is there, or an empty one of the kind of other.
func (s *Server) live(path string, other *unstructured.Unstructured) *unstructured.Unstructured {
	if o := s.objects[path]; o != nil {
		return &unstructured.Unstructured{Object: runtime.DeepCopyJSON(o)}
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(other.GroupVersionKind())
	return u
}

// addressed checks that an object is sent to where it belongs.
func addressed(path string, body map[string]any) error {
	u := &unstructured.Unstructured{Object: body}
	if ns := namespaceOf(path); u.GetNamespace() != "" && u.GetNamespace() != ns {
		return fmt.Errorf("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// fieldManager finds the field manager of a kind: making one is slow.
func (s *Server) fieldManager(gvk schema.GroupVersionKind) (*managedfields.FieldManager, error) {
	if m := s.managers[gvk]; m != nil {
		return m, nil
	}
	types := managedfields.NewDeducedTypeConverter()
	// Libraries add definitions to the scheme, which has no schema of them.
	if scheme.Scheme.Recognizes(gvk) && gvk.Group != "apiextensions.k8s.io" {
		types = applyconfigurations.NewTypeConverter(scheme.Scheme)
	}
	m, err := managedfields.NewDefaultCRDFieldManager(types, sameVersion{}, noDefaults{}, empty{}, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		return nil, err
	}
	s.managers[gvk] = m
	return m, nil
}

// sameVersion converts objects, of which there is one version only.
type sameVersion struct{}

func (sameVersion) Convert(_, _, _ any) error { return fmt.Errorf("not supported") }

func (sameVersion) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

func (sameVersion) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

type noDefaults struct{}

func (noDefaults) Default(runtime.Object) {}

type empty struct{}

func (empty) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(gvk)
	return u, nil
}
