package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Namespace is where inventories are kept.
const Namespace = "bothy-system"

const inventoryKey = "inventory.json"

var (
	configMaps = &resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("configmaps"), namespaced: true}
	namespaces = &resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("namespaces")}
)

// ConfigMapStore keeps the inventory called name in the ConfigMap
// inventory-<name> in Namespace, and creates both.
func ConfigMapStore(client *Client, name string) InventoryStore {
	return &configMapStore{client: client, name: "inventory-" + name}
}

type configMapStore struct {
	client *Client
	name   string
	// version is the ConfigMap's resource version when it was last read or
	// written; empty if it does not exist.
	version string
}

func (s *configMapStore) Load(ctx context.Context) (Record, error) {
	live, err := s.client.get(ctx, configMaps, Namespace, s.name, whole)
	if apierrors.IsNotFound(err) {
		s.version = ""
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read inventory: %w", unavailable(err))
	}
	text, _, _ := unstructured.NestedString(live.Object, "data", inventoryKey)
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("read inventory: ConfigMap %s/%s cannot be decoded (%w); restore it, or delete it and remove left-over objects by hand: kubectl get all -A -l %s", Namespace, s.name, err, InventoryLabel)
	}
	s.version = live.GetResourceVersion()
	return r, nil
}

func (s *configMapStore) Save(ctx context.Context, r Record) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	body, err := json.Marshal(&corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: s.name, Namespace: Namespace, ResourceVersion: s.version,
			Annotations: map[string]string{"bothy.dev/description": "objects that bothy applied from Git; it deletes those that leave Git"},
		},
		Data: map[string]string{inventoryKey: string(text)},
	})
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	live, err := s.put(ctx, body)
	if err != nil {
		return fmt.Errorf("write inventory %s/%s: %w", Namespace, s.name, unavailable(err))
	}
	s.version = live.GetResourceVersion()
	return nil
}

func (s *configMapStore) put(ctx context.Context, body []byte) (*unstructured.Unstructured, error) {
	if s.version != "" {
		return s.client.write(ctx, http.MethodPut, configMaps, Namespace, s.name, body)
	}
	live, err := s.client.write(ctx, http.MethodPost, configMaps, Namespace, "", body)
	if !apierrors.IsNotFound(err) {
		return live, err
	}
	if err := s.createNamespace(ctx); err != nil {
		return nil, err
	}
	return s.client.write(ctx, http.MethodPost, configMaps, Namespace, "", body)
}

func (s *configMapStore) createNamespace(ctx context.Context) error {
	body := []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + Namespace + `"}}`)
	_, err := s.client.write(ctx, http.MethodPost, namespaces, "", "", body)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
