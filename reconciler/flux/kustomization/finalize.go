package kustomization

import (
	"context"
	"errors"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

// finalize deletes what the object applied, if its deletion policy says so, and
// lets the object go.
func (a *attempt) finalize(ctx context.Context) (ctrl.Result, error) {
	a.revision = a.obj.Status.LastAppliedRevision
	if a.deletesObjects() {
		done, err := a.deleteObjects(ctx)
		switch {
		case errors.Is(err, errNobody):
			a.event(eventv1.EventSeverityError, err.Error(), nil)
		case err != nil:
			if !errors.Is(err, apply.ErrUnavailable) {
				a.event(eventv1.EventSeverityError, "pruning for deleted resource failed: "+err.Error(), nil)
			}
			return ctrl.Result{RequeueAfter: a.job.nextRetry()}, nil
		case !done:
			// The engine calls when an object is gone.
			return ctrl.Result{RequeueAfter: terminationLook}, nil
		}
	}
	if err := status.RemoveFinalizer(ctx, a.client, a.obj, kustomizev1.KustomizationFinalizer, owner); err != nil {
		return ctrl.Result{}, conflictIsLater(err)
	}
	a.forget(a.name())
	return ctrl.Result{}, nil
}

// terminationLook is how often objects are looked at whose end is awaited, in
// case nobody calls.
const terminationLook = 10 * time.Second

// deletesObjects applies the deletion policy.
func (a *attempt) deletesObjects() bool {
	inventory := a.obj.Status.Inventory
	if a.obj.Spec.Suspend || inventory == nil || len(inventory.Entries) == 0 {
		return false
	}
	switch a.obj.GetDeletionPolicy() {
	case kustomizev1.DeletionPolicyMirrorPrune:
		return a.obj.Spec.Prune
	case kustomizev1.DeletionPolicyDelete, kustomizev1.DeletionPolicyWaitForTermination:
		return true
	}
	return false
}

// errNobody says that there is no identity left to delete objects with.
var errNobody = errors.New("unable to prune objects")

func (a *attempt) deleteObjects(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.obj.GetTimeout())
	defer cancel()
	if err := a.identityExists(ctx); err != nil {
		return false, err
	}
	if a.job.engine == nil {
		t, err := a.targetOf(ctx)
		switch {
		case apierrors.IsNotFound(err):
			return false, fmt.Errorf("%w: %w", errNobody, err)
		case err != nil:
			return false, err
		}
		a.job.hold(apply.NewEngine(t.client, a.options(t)), t)
	}
	wait := a.obj.GetDeletionPolicy() == kustomizev1.DeletionPolicyWaitForTermination
	if wait && a.now().Sub(a.obj.DeletionTimestamp.Time) > a.obj.GetTimeout() {
		a.event(eventv1.EventSeverityError, "failed to wait for resources termination", nil)
		wait = false
	}
	return a.job.engine.Delete(ctx, wait)
}

// identityExists fails with errNobody if the account or the kubeconfig to delete
// objects with is gone, so that the object is not kept for ever.
func (a *attempt) identityExists(ctx context.Context) error {
	account := a.obj.Spec.ServiceAccountName
	if account == "" || a.obj.Spec.KubeConfig != nil {
		return nil
	}
	err := a.client.Get(ctx, client.ObjectKey{Namespace: a.obj.Namespace, Name: account}, &corev1.ServiceAccount{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: service account %s is gone", errNobody, account)
	}
	return err
}
