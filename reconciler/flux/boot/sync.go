package boot

import (
	"context"
	"path"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/flux/internal/inventory"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

func (r *reconciler) reconcileSync(ctx context.Context) error {
	from, state := r.root.Source(), r.root.Sync()
	after := &kustomizev1.Kustomization{}
	found, err := r.get(ctx, after, syncOwner, func() { fillSync(after, from, state) })
	if err != nil || !found {
		return err
	}
	if r.sync != nil && r.sync.UID == after.UID {
		after.Status = *r.sync.Status.DeepCopy()
	}
	before := after.DeepCopy()
	r.root.SuspendSync(after.Spec.Suspend)
	r.asked(after, after.Status.LastHandledReconcileAt, &r.syncRequest)
	showSync(after, state)
	if r.syncRequest.at != "" && from.Answered >= r.syncRequest.number && state.Phase != Progressing && state.Attempted == from.Revision {
		after.Status.LastHandledReconcileAt = r.syncRequest.at
	}
	if _, err := status.Write(ctx, r.client, before, after, syncOwner); err != nil {
		return err
	}
	r.sync = after
	return nil
}

// fillSync describes an apply that Git does not describe.
func fillSync(o *kustomizev1.Kustomization, from Source, s Sync) {
	o.Spec = kustomizev1.KustomizationSpec{
		Interval: metaInterval(from.Interval),
		Path:     "./" + path.Clean(s.Path),
		Prune:    true,
		Wait:     true,
		SourceRef: kustomizev1.CrossNamespaceSourceReference{
			Kind: sourcev1.GitRepositoryKind, Name: source.BootKey.Name,
		},
	}
}

// showSync writes what became of the accepted commit into the status.
func showSync(o *kustomizev1.Kustomization, s Sync) {
	o.Status.LastAttemptedRevision, o.Status.LastAppliedRevision = s.Attempted, s.Applied
	if len(s.Inventory) > 0 || o.Status.Inventory != nil {
		o.Status.Inventory = inventory.Of(s.Inventory)
	}
	switch s.Phase {
	case Ready:
		conditions.MarkTrue(o, meta.ReadyCondition, meta.ReconciliationSucceededReason, "%s", s.Message)
		conditions.MarkTrue(o, meta.HealthyCondition, meta.SucceededReason, "Health check passed")
		conditions.Delete(o, meta.ReconcilingCondition)
		o.Status.ObservedGeneration = o.Generation
	case Failed:
		conditions.MarkFalse(o, meta.ReadyCondition, s.Reason, "%s", s.Message)
		conditions.MarkFalse(o, meta.HealthyCondition, s.Reason, "%s", s.Message)
		conditions.MarkReconciling(o, meta.ProgressingWithRetryReason, "Applying revision %s", s.Attempted)
	default:
		conditions.MarkUnknown(o, meta.ReadyCondition, meta.ProgressingReason, "Reconciliation in progress")
		conditions.MarkUnknown(o, meta.HealthyCondition, meta.ProgressingReason, "Reconciliation in progress")
		conditions.MarkReconciling(o, meta.ProgressingReason, "Applying revision %s", s.Attempted)
	}
}
