// Package status writes the status and the finalizers of objects of the Flux
// API, and only when something in them changed.
//
// The package must not know what the fields mean.
package status

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Write sends what differs between the status of before and after, as owner.
// Whoever calls it must be the only one who writes the fields that differ. It
// reports whether there was anything to send. Neither object is changed.
func Write(ctx context.Context, c client.Client, before, after client.Object, owner string) (bool, error) {
	// A version in the patch would make it fail whenever somebody else, or we
	// ourselves, wrote the object meanwhile.
	answer := after.DeepCopyObject().(client.Object)
	answer.SetResourceVersion(before.GetResourceVersion())
	answer.SetFinalizers(before.GetFinalizers())
	data, err := client.MergeFrom(before).Data(answer)
	if err != nil {
		return false, fmt.Errorf("compare status: %w", err)
	}
	if bytes.Equal(data, []byte("{}")) {
		return false, nil
	}
	if err := c.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, data), client.FieldOwner(owner)); err != nil {
		return false, fmt.Errorf("write status: %w", err)
	}
	return true, nil
}

// AddFinalizer adds the finalizer if the object lacks it.
func AddFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer, owner string) error {
	return changeFinalizers(ctx, c, o, owner, func(o client.Object) bool { return controllerutil.AddFinalizer(o, finalizer) })
}

// RemoveFinalizer removes the finalizer if the object has it.
func RemoveFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer, owner string) error {
	return changeFinalizers(ctx, c, o, owner, func(o client.Object) bool { return controllerutil.RemoveFinalizer(o, finalizer) })
}

// changeFinalizers replaces the list, which is a merge patch only of the very
// version that it was made from.
func changeFinalizers(ctx context.Context, c client.Client, o client.Object, owner string, change func(client.Object) bool) error {
	before := o.DeepCopyObject().(client.Object)
	after := o.DeepCopyObject().(client.Object)
	if !change(after) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := c.Patch(ctx, after, patch, client.FieldOwner(owner)); err != nil {
		return fmt.Errorf("write finalizers: %w", err)
	}
	o.SetFinalizers(after.GetFinalizers())
	o.SetResourceVersion(after.GetResourceVersion())
	return nil
}
