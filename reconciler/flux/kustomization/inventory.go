package kustomization

import (
	"context"
	"fmt"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/bothy-os/bothy/reconciler/apply"
	entries "github.com/bothy-os/bothy/reconciler/flux/internal/inventory"
)

// inventory keeps the engine's inventory in the status of the object, in Flux's
// format.
//
// Objects that are added are written at once, since the engine sends them next.
// What was deleted leaves with the status that the reconcile writes at its end:
// an entry too many is asked for once more and does no harm.
type inventory struct{ job *job }

// Load implements apply.InventoryStore.
func (s *inventory) Load(context.Context) (apply.Record, error) {
	if s.job.record != nil {
		return clone(*s.job.record), nil
	}
	status := s.job.look().status
	r := apply.Record{Commit: status.LastAppliedRevision}
	ids, err := entries.Parse(status.Inventory)
	if err != nil {
		return apply.Record{}, fmt.Errorf("read status.inventory: %w", err)
	}
	r.Objects, r.Size = ids, len(ids)
	return r, nil
}

// Save implements apply.InventoryStore.
func (s *inventory) Save(ctx context.Context, r apply.Record) error {
	if a := s.job.current; a != nil && gains(a.before.Status.Inventory, r.Objects) {
		if err := a.announceObjects(ctx, r); err != nil {
			return err
		}
	}
	r = clone(r)
	s.job.record = &r
	return nil
}

// announceObjects writes the inventory before its objects are sent, and that
// they are about to be.
func (a *attempt) announceObjects(ctx context.Context, r apply.Record) error {
	message := fmt.Sprintf("Applying revision %s with a timeout of %s", a.revision, a.obj.GetTimeout())
	if a.obj.Spec.Wait || len(a.obj.Spec.HealthChecks) > 0 {
		message = healthMessage(a.revision, a.obj.GetTimeout())
		conditions.MarkUnknown(a.obj, meta.HealthyCondition, meta.ProgressingReason, "%s", message)
	}
	a.progress(message)
	a.obj.Status.LastAttemptedRevision = a.revision
	a.obj.Status.Inventory = entries.Of(r.Objects)
	err := a.write(ctx)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
		return fmt.Errorf("%w: %w", apply.ErrUnavailable, err)
	}
	return err
}

// storeInventory puts the engine's inventory into the status that is written
// next.
func (a *attempt) storeInventory() {
	if a.job.record != nil {
		a.obj.Status.Inventory = entries.Of(a.job.record.Objects)
	}
}

// gains reports whether there are objects that the stored inventory has not.
func gains(stored *kustomizev1.ResourceInventory, ids []apply.ID) bool {
	have := make(map[kustomizev1.ResourceRef]bool)
	if stored != nil {
		for _, entry := range stored.Entries {
			have[entry] = true
		}
	}
	return slices.ContainsFunc(ids, func(id apply.ID) bool { return !have[entries.Entry(id)] })
}

func clone(r apply.Record) apply.Record {
	r.Objects, r.Added = slices.Clone(r.Objects), slices.Clone(r.Added)
	return r
}
