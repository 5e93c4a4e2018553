package crds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

const (
	fieldManager = "bothy"

	// establishTimeout bounds the wait for the API server to serve a definition
	// that it has taken; it needs some hundred milliseconds.
	establishTimeout = 30 * time.Second
	establishPoll    = 25 * time.Millisecond
)

// Install puts the definitions into the cluster, where they are missing or were
// made from other files, and waits until all their kinds are served.
func Install(ctx context.Context, config *rest.Config) error {
	in, err := newInstaller(config)
	if err != nil {
		return fmt.Errorf("install the Flux API: %w", err)
	}
	wanted, err := Definitions()
	if err != nil {
		return fmt.Errorf("install the Flux API: %w", err)
	}
	present, err := in.present(ctx)
	if err != nil {
		return fmt.Errorf("list the definitions of the Flux API: %w", err)
	}
	var sent []string
	for _, u := range wanted {
		if present[u.GetName()] == u.GetAnnotations()[digestAnnotation] {
			continue
		}
		if err := in.apply(ctx, u); err != nil {
			return fmt.Errorf("apply definition %s: %w", u.GetName(), err)
		}
		sent = append(sent, u.GetName())
	}
	return in.awaitEstablished(ctx, sent)
}

type installer struct {
	definitions dynamic.ResourceInterface
	metadata    metadata.ResourceInterface
}

func newInstaller(config *rest.Config) (*installer, error) {
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	resource := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	return &installer{definitions: objects.Resource(resource), metadata: meta.Resource(resource)}, nil
}

// present returns the digests of the definitions that are there and were not
// touched since they were established.
func (in *installer) present(ctx context.Context) (map[string]string, error) {
	list, err := in.metadata.List(ctx, metav1.ListOptions{LabelSelector: managedByLabel + "=" + managedBy})
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(list.Items))
	for i := range list.Items {
		if item := &list.Items[i]; item.DeletionTimestamp == nil {
			out[item.Name] = item.Annotations[digestAnnotation]
		}
	}
	return out, nil
}

// apply sends a definition. Fields that others own are taken over: a cluster
// that ran Flux has the same definitions under Flux's name.
func (in *installer) apply(ctx context.Context, u *unstructured.Unstructured) error {
	body, err := u.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = in.definitions.Patch(ctx, u.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
	return err
}

func (in *installer) awaitEstablished(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	for len(names) > 0 {
		live, err := in.definitions.Get(ctx, names[0], metav1.GetOptions{})
		switch {
		case err == nil && established(live):
			names = names[1:]
			continue
		case err != nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("wait for definition %s: %w", names[0], err)
		}
		if err := pause(ctx, establishPoll); err != nil {
			return fmt.Errorf("definition %s is not served; see kubectl describe crd %s: %w", names[0], names[0], err)
		}
	}
	return nil
}

// established reports whether the API server serves the definition. A name that
// is taken by another definition never becomes so.
func established(u *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(u.Object, "status", "conditions")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(conditions, func(c any) bool {
		condition, ok := c.(map[string]any)
		return ok && condition["type"] == "Established" && condition["status"] == "True"
	})
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), context.Cause(ctx))
	}
}
