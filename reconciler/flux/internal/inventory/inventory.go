// Package inventory writes inventories in the format of the Flux API, which the
// flux command reads.
package inventory

import (
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/object"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// Entry names an object as "<namespace>_<name>_<group>_<kind>".
func Entry(id apply.ID) kustomizev1.ResourceRef {
	o := object.ObjMetadata{Namespace: id.Namespace, Name: id.Name, GroupKind: schema.GroupKind{Group: id.Group, Kind: id.Kind}}
	return kustomizev1.ResourceRef{ID: o.String(), Version: id.Version}
}

// Of lists objects in their order.
func Of(ids []apply.ID) *kustomizev1.ResourceInventory {
	out := &kustomizev1.ResourceInventory{Entries: make([]kustomizev1.ResourceRef, len(ids))}
	for i, id := range ids {
		out.Entries[i] = Entry(id)
	}
	return out
}

// Parse is the reverse of Of. The inventory may be nil.
func Parse(in *kustomizev1.ResourceInventory) ([]apply.ID, error) {
	if in == nil {
		return nil, nil
	}
	ids := make([]apply.ID, len(in.Entries))
	for i, entry := range in.Entries {
		o, err := object.ParseObjMetadata(entry.ID)
		if err != nil {
			return nil, fmt.Errorf("inventory entry %q: %w", entry.ID, err)
		}
		ids[i] = apply.ID{Group: o.GroupKind.Group, Version: entry.Version, Kind: o.GroupKind.Kind, Namespace: o.Namespace, Name: o.Name}
	}
	return ids, nil
}
