package objects

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const inventoryName = "bootstrap-inventory"

// keepKinds are not deleted when they leave the manifest: their deletion takes
// with it what people put inside.
var keepKinds = []string{"Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"}

// A ref names an object that was applied.
type ref struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func refOf(o *unstructured.Unstructured) ref {
	gvk := o.GroupVersionKind()
	return ref{gvk.Group, gvk.Version, gvk.Kind, o.GetNamespace(), o.GetName()}
}

func (r ref) same(o ref) bool {
	return r.Group == o.Group && r.Kind == o.Kind && r.Namespace == o.Namespace && r.Name == o.Name
}

func (a *Applier) prune(ctx context.Context, objs []*unstructured.Unstructured) error {
	var now []ref
	for _, o := range objs {
		now = append(now, refOf(o))
	}
	before, err := a.inventory(ctx)
	if err != nil {
		return fmt.Errorf("read the inventory of system objects: %w", err)
	}
	for _, old := range before {
		if slices.ContainsFunc(now, old.same) {
			continue
		}
		if err := a.remove(ctx, old); err != nil {
			return fmt.Errorf("remove %s %s/%s, which is no longer asked for: %w", old.Kind, old.Namespace, old.Name, err)
		}
	}
	data, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("encode the inventory of system objects: %w", err)
	}
	_, err = a.one(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": inventoryName, "namespace": Namespace},
		"data":     map[string]any{"objects": string(data)},
	}})
	if err != nil {
		return fmt.Errorf("store the inventory of system objects: %w", err)
	}
	return nil
}

func (a *Applier) inventory(ctx context.Context) ([]ref, error) {
	live, err := a.resource(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Namespace).Get(ctx, inventoryName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, _, _ := unstructured.NestedString(live.Object, "data", "objects")
	var refs []ref
	if err := json.Unmarshal([]byte(data), &refs); err != nil {
		// Somebody edited it. Nothing is pruned this time; it is written anew.
		a.Log.Warn("inventory of system objects is unreadable, nothing is pruned", "configmap", Namespace+"/"+inventoryName, "err", err)
		return nil, nil
	}
	return refs, nil
}

// remove deletes an object that is still ours.
func (a *Applier) remove(ctx context.Context, r ref) error {
	if slices.Contains(keepKinds, r.Kind) {
		a.Log.Warn("object is no longer asked for but kept: deleting it would delete what is in it", "kind", r.Kind, "name", r.Name)
		return nil
	}
	client := a.resource(schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}, r.Namespace)
	live, err := client.Get(ctx, r.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ours := func(f metav1.ManagedFieldsEntry) bool { return f.Manager == FieldManager }
	if !slices.ContainsFunc(live.GetManagedFields(), ours) {
		return nil
	}
	uid := live.GetUID()
	err = client.Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	a.Log.Info("removed a system object that is no longer asked for", "kind", r.Kind, "namespace", r.Namespace, "name", r.Name)
	return nil
}
