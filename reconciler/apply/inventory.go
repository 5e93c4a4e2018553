package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Namespace is where inventories are kept.
const Namespace = "bothy-system"

const inventoryKey = "inventory.json"

// inventory lists what was, or may have been, sent to the cluster.
type inventory struct {
	// Commit is the last commit that was applied whole, Size the number of its
	// objects; empty before the first.
	Commit  string `json:"commit,omitempty"`
	Size    int    `json:"size"`
	Objects []ID   `json:"objects"`

	resourceVersion string // of the ConfigMap; empty if it does not exist
}

func (i *inventory) sort() {
	slices.SortFunc(i.Objects, func(a, b ID) int {
		return strings.Compare(a.sortKey(), b.sortKey())
	})
}

func (id ID) sortKey() string {
	return strings.Join([]string{id.Group, id.Kind, id.Namespace, id.Name, id.Version}, "\x00")
}

func (e *Engine) inventoryName() string { return "inventory-" + e.name }

func (e *Engine) configMaps() resource {
	return resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("configmaps"), namespaced: true}
}

// readInventory reads the inventory if it is not known.
func (e *Engine) readInventory(ctx context.Context) error {
	if e.inventory != nil {
		return nil
	}
	live, err := e.client.of(e.configMaps(), Namespace).Get(ctx, e.inventoryName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		e.inventory = &inventory{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read inventory: %w", unavailable(err))
	}
	text, _, _ := unstructured.NestedString(live.Object, "data", inventoryKey)
	inv := &inventory{resourceVersion: live.GetResourceVersion()}
	if err := json.Unmarshal([]byte(text), inv); err != nil {
		return fmt.Errorf("read inventory: ConfigMap %s/%s cannot be decoded (%w); restore it, or delete it and remove left-over objects by hand: kubectl get all -A -l %s=%s", Namespace, e.inventoryName(), err, InventoryLabel, e.name)
	}
	e.inventory = inv
	return nil
}

// writeInventory replaces the inventory in the cluster.
func (e *Engine) writeInventory(ctx context.Context, next *inventory) error {
	next.sort()
	text, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	cm := &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: e.inventoryName(), Namespace: Namespace, ResourceVersion: e.inventory.resourceVersion,
			Annotations: map[string]string{"bothy.dev/description": "objects that bothy applied from Git; it deletes those that leave Git"},
		},
		Data: map[string]string{inventoryKey: string(text)},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(cm)
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	live, err := e.putInventory(ctx, &unstructured.Unstructured{Object: content})
	if err != nil {
		e.inventory = nil // somebody else may have written it: read it again
		return fmt.Errorf("write inventory %s/%s: %w", Namespace, e.inventoryName(), unavailable(err))
	}
	next.resourceVersion = live.GetResourceVersion()
	e.inventory = next
	return nil
}

func (e *Engine) putInventory(ctx context.Context, cm *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	maps := e.client.of(e.configMaps(), Namespace)
	if cm.GetResourceVersion() != "" {
		return maps.Update(ctx, cm, metav1.UpdateOptions{FieldManager: FieldManager})
	}
	live, err := maps.Create(ctx, cm, metav1.CreateOptions{FieldManager: FieldManager})
	if !apierrors.IsNotFound(err) {
		return live, err
	}
	if err := e.createNamespace(ctx); err != nil {
		return nil, err
	}
	return maps.Create(ctx, cm, metav1.CreateOptions{FieldManager: FieldManager})
}

func (e *Engine) createNamespace(ctx context.Context) error {
	namespaces := resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("namespaces")}
	ns := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": Namespace},
	}}
	_, err := e.client.of(namespaces, "").Create(ctx, ns, metav1.CreateOptions{FieldManager: FieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
