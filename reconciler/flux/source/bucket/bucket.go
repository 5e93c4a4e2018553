// Package bucket says on Bucket objects of the Flux API that they are not
// served, so that nobody waits for an artifact that will not come.
package bucket

import (
	"context"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

const (
	// Reason is that of the condition Ready.
	Reason = "Unsupported"

	message = "Bucket sources are not supported; put the files into an OCI artifact (flux push artifact) and use an OCIRepository, or into Git and use a GitRepository"
	owner   = "source-controller"
)

// Setup registers the controller.
func Setup(mgr ctrl.Manager, _ env.Env) error {
	return ctrl.NewControllerManagedBy(mgr).Named("bucket").
		For(&sourcev1.Bucket{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(&reconciler{client: mgr.GetClient()})
}

type reconciler struct{ client client.Client }

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	after := &sourcev1.Bucket{}
	if err := r.client.Get(ctx, req.NamespacedName, after); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := after.DeepCopy()
	conditions.MarkFalse(after, meta.ReadyCondition, Reason, "%s", message)
	conditions.MarkStalled(after, Reason, "%s", message)
	after.Status.ObservedGeneration = after.Generation
	_, err := status.Write(ctx, r.client, before, after, owner)
	return ctrl.Result{}, err
}
