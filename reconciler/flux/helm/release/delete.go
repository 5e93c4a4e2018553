package release

import (
	"context"
	"errors"
	"fmt"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/objects"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

// delete is the job for an object that is being deleted: it uninstalls the
// release and deletes the HelmChart, unless the object is suspended, and lets
// the object go.
func (r *controller) delete(ctx context.Context, job *jobs.Job, object *v2.HelmRelease) (ctrl.Result, error) {
	if !object.Spec.Suspend {
		before := object.DeepCopy()
		err := r.removeRelease(ctx, job, object)
		if err == nil {
			err = r.removeChart(ctx, object)
		}
		if ctx.Err() != nil {
			return ctrl.Result{}, ctx.Err()
		}
		if err != nil {
			return ctrl.Result{}, errors.Join(err, r.write(ctx, before, object, r.memoryOf(client.ObjectKeyFromObject(object))))
		}
	}
	err := status.RemoveFinalizer(ctx, r.client, object, objects.Finalizer, owner)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	r.forget(client.ObjectKeyFromObject(object))
	return ctrl.Result{}, nil
}

// removeRelease uninstalls the release of an object, if there is one and there
// is still somebody in whose name that can be done.
func (r *controller) removeRelease(ctx context.Context, job *jobs.Job, object *v2.HelmRelease) error {
	if object.Status.StorageNamespace == "" {
		return nil
	}
	a, err := r.newAttempt(ctx, job, object, nil)
	if apierrors.IsNotFound(err) {
		r.env.Log.Warn("the release is left in the cluster: its kubeconfig is gone",
			"helmrelease", client.ObjectKeyFromObject(object).String(), "error", err)
		return nil
	}
	if err != nil {
		conditions.MarkFalse(object, meta.ReadyCondition, v2.UninstallFailedReason,
			"failed to build REST client getter to uninstall release: %s", err)
		return err
	}
	if there, err := r.accountExists(ctx, object); err != nil || !there {
		return err
	}
	a.meta = new(chart.Metadata)
	a.save = func(context.Context) error { return nil }
	err = a.uninstall(ctx)
	if err != nil && !errors.Is(err, errNoCurrent) {
		return err
	}
	object.Status.ClearHistory()
	object.Status.StorageNamespace = ""
	return nil
}

// accountExists tells whether the service account is there that the release is
// uninstalled as. Where a whole namespace is deleted, it goes first.
func (r *controller) accountExists(ctx context.Context, object *v2.HelmRelease) (bool, error) {
	name := r.clusters.accountOf(object)
	if name == "" || object.Spec.KubeConfig != nil {
		return true, nil
	}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: object.Namespace, Name: name}, new(corev1.ServiceAccount))
	if apierrors.IsNotFound(err) {
		r.env.Log.Warn("the release is left in the cluster: its service account is gone",
			"helmrelease", client.ObjectKeyFromObject(object).String(), "serviceAccount", name)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("failed to confirm ServiceAccount '%s' can be used to uninstall release: %w", name, err)
	}
	return true, nil
}
