package flux

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/bothy-os/bothy/reconciler/flux/crds"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// EnsureDefinitions puts the definitions of the Flux API and the namespace
// flux-system into the cluster if they are not there, and returns when they are
// served. Whoever sends objects of the Flux API calls it before. It is cheap
// after the first time. It fails if the API server does not answer.
func (c *Controllers) EnsureDefinitions(ctx context.Context) error {
	config, err := loadConfig(c.cfg.Kubeconfig)
	if err != nil {
		return err
	}
	return c.prepare(ctx, config)
}

func (c *Controllers) prepare(ctx context.Context, config *rest.Config) error {
	c.preparing.Lock()
	defer c.preparing.Unlock()
	if c.prepared {
		return nil
	}
	if err := crds.Install(ctx, config); err != nil {
		return err
	}
	if err := ensureNamespace(ctx, config, source.BootKey.Namespace); err != nil {
		return err
	}
	c.prepared = true
	return nil
}

// ensureNamespace makes a namespace that is not there. One that is there may
// belong to Git and is left as it is.
func ensureNamespace(ctx context.Context, config *rest.Config, name string) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(name)
	_, err = client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	return nil
}
