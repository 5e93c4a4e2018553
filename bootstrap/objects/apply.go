package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// FieldManager owns the fields that are applied here.
const FieldManager = "bothy-bootstrap"

// Applier applies objects with a client's rights.
type Applier struct {
	Client dynamic.Interface
	Log    *slog.Logger
}

// Apply brings all objects into the API and removes those of an earlier call
// that are no longer asked for. It does what it can and returns what failed as
// one error; calling it again goes on with the rest.
func (a *Applier) Apply(ctx context.Context, objs []*unstructured.Unstructured) error {
	var failed []error
	written := 0
	for _, obj := range sortForApply(objs) {
		wrote, err := a.one(ctx, obj)
		if err != nil {
			failed = append(failed, fmt.Errorf("apply %s: %w", name(obj), err))
		}
		if wrote {
			written++
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if written > 0 {
		a.Log.Info("system objects applied", "objects", len(objs), "written", written)
	}
	return a.prune(ctx, objs)
}

// one reports whether it had to write.
func (a *Applier) one(ctx context.Context, desired *unstructured.Unstructured) (bool, error) {
	sum, err := digest(desired)
	if err != nil {
		return false, err
	}
	desired = desired.DeepCopy()
	annotations := desired.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[digestAnnotation] = sum
	desired.SetAnnotations(annotations)

	client := a.resource(desired.GroupVersionKind(), desired.GetNamespace())
	live, err := client.Get(ctx, desired.GetName(), metav1.GetOptions{})
	if err == nil && contains(live.Object, desired.Object) {
		return false, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	_, err = client.Apply(ctx, desired.GetName(), desired, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return err == nil, err
}

func (a *Applier) resource(gvk schema.GroupVersionKind, namespace string) dynamic.ResourceInterface {
	gvr, _ := meta.UnsafeGuessKindToResource(gvk)
	if namespace == "" {
		return a.Client.Resource(gvr)
	}
	return a.Client.Resource(gvr).Namespace(namespace)
}

// contains reports whether live holds everything that desired asks for. A
// value that the server writes differently is taken for a difference; applying
// it then changes nothing.
func contains(live, desired any) bool {
	switch want := desired.(type) {
	case nil:
		return true
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			return len(want) == 0 && live == nil
		}
		for k, v := range want {
			if !contains(have[k], v) {
				return false
			}
		}
		return true
	case []any:
		have, ok := live.([]any)
		if !ok {
			return len(want) == 0 && live == nil
		}
		if len(have) != len(want) {
			return false
		}
		for i := range want {
			if !contains(have[i], want[i]) {
				return false
			}
		}
		return true
	}
	if a, ok := number(live); ok {
		b, ok := number(desired)
		return ok && a == b
	}
	return reflect.DeepEqual(live, desired)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
