package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// InventoryLabel marks the objects of an inventory; its value is the
// inventory's name.
const InventoryLabel = "bothy.dev/inventory"

// PruneAnnotation with the value "disabled" keeps an object that left Git.
const PruneAnnotation = "bothy.dev/prune"

// ID names an object. The version is the one it was applied with; it does not
// count for identity.
type ID struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (id ID) String() string {
	name := id.Name
	if id.Namespace != "" {
		name = id.Namespace + "/" + name
	}
	return id.Kind + " " + name
}

// key is the ID without the version.
func (id ID) key() ID { id.Version = ""; return id }

func (id ID) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: id.Group, Version: id.Version, Kind: id.Kind}
}

func idOf(u *unstructured.Unstructured) ID {
	gvk := u.GroupVersionKind()
	return ID{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
}

// object is one wanted object and what is known about it in the cluster.
type object struct {
	id     ID
	body   []byte // what is sent
	digest [sha256.Size]byte
	stage  int

	// What the last successful apply or look found; uid is empty before.
	uid             types.UID
	resourceVersion string
	generation      int64
	applied         [sha256.Size]byte

	failure *Failure
	health  health
}

// newObject prepares an object for the inventory with the given name.
func newObject(u *unstructured.Unstructured, inventory string) (*object, error) {
	u = u.DeepCopy()
	// Status is the cluster's to say; fields that only a live object has would
	// make every apply a conflict.
	unstructured.RemoveNestedField(u.Object, "status")
	for _, field := range []string{"creationTimestamp", "resourceVersion", "uid", "generation", "managedFields", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[InventoryLabel] = inventory
	u.SetLabels(labels)
	o := &object{id: idOf(u), stage: stageOf(u.GroupVersionKind())}
	return o, o.setBody(u)
}

func (o *object) setBody(u *unstructured.Unstructured) error {
	body, err := u.MarshalJSON()
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.id, err)
	}
	o.body, o.digest = body, sha256.Sum256(body)
	return nil
}

// settled reports whether the cluster holds this very content as far as known.
func (o *object) settled() bool {
	return o.failure == nil && o.uid != "" && o.applied == o.digest
}

// place puts an object without a namespace where kubectl would.
func (o *object) place(r resource) error {
	u := &unstructured.Unstructured{}
	switch {
	case r.namespaced && o.id.Namespace == "":
		o.id.Namespace = metav1.NamespaceDefault
	case !r.namespaced && o.id.Namespace != "":
		o.id.Namespace = ""
	default:
		return nil
	}
	if err := u.UnmarshalJSON(o.body); err != nil {
		return err
	}
	u.SetNamespace(o.id.Namespace)
	return o.setBody(u)
}

// apply sends the object and takes note of the answer. An error is
// ErrUnavailable or ctx's; what the server says about the object is in
// o.failure.
func (e *Engine) apply(ctx context.Context, o *object) error {
	r, err := e.client.resourceOf(ctx, o.id.gvk())
	if err == nil {
		var live *unstructured.Unstructured
		live, err = e.client.of(r, o.id.Namespace).Patch(ctx, o.id.Name, types.ApplyPatchType, o.body,
			metav1.PatchOptions{FieldManager: FieldManager, Force: new(true)})
		if err == nil {
			o.failure, o.applied = nil, o.digest
			o.observe(live)
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := unavailable(err); errors.Is(err, ErrUnavailable) {
		return err
	}
	if errors.Is(err, errNoKind) {
		o.failure = &Failure{ID: o.id, Problem: fmt.Sprintf("the API server does not know %s of %s/%s", o.id.Kind, o.id.Group, o.id.Version), Remedy: "add its CustomResourceDefinition to Git, or correct apiVersion and kind"}
		return nil
	}
	o.failure = failureOf(o.id, err)
	return nil
}

// observe takes note of the live object.
func (o *object) observe(live *unstructured.Unstructured) {
	o.uid = live.GetUID()
	o.resourceVersion = live.GetResourceVersion()
	o.generation = live.GetGeneration()
	o.health = healthOf(live)
}

// metadata decodes the labels and annotations that are sent.
func (o *object) metadata() (*metav1.ObjectMeta, error) {
	var content struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(o.body, &content); err != nil {
		return nil, err
	}
	return &content.Metadata, nil
}
