package kustomization

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/apply"
	entries "github.com/bothy-os/bothy/reconciler/flux/internal/inventory"
)

// StoredInventory is the inventory in the status of an object, to look at: it
// is not written to.
func StoredInventory(obj *kustomizev1.Kustomization) apply.InventoryStore {
	return storedInventory{obj}
}

type storedInventory struct{ obj *kustomizev1.Kustomization }

func (s storedInventory) Load(context.Context) (apply.Record, error) {
	ids, err := entries.Parse(s.obj.Status.Inventory)
	if err != nil {
		return apply.Record{}, fmt.Errorf("read status.inventory: %w", err)
	}
	return apply.Record{Commit: s.obj.Status.LastAppliedRevision, Objects: ids, Size: len(ids)}, nil
}

func (storedInventory) Save(context.Context, apply.Record) error { return nil }
