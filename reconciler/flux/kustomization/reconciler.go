package kustomization

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/jitter"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

const (
	// After an error that says nothing about the object, such as an API server
	// that is away, a reconcile is tried again after this time, doubled each time.
	retryMin = 100 * time.Millisecond
	retryMax = 15 * time.Second

	// A commit that changes one of many objects moves the revision of all. Their
	// status follows at this rate, so that the API server has time for the one.
	followRate  = rate.Limit(100)
	followBurst = 10
)

// AllowPruneAnnotation with the value "true" on a Kustomization allows a
// revision to delete more than half of its objects, or all.
const AllowPruneAnnotation = "bothy.dev/allow-prune"

type reconciler struct {
	client  client.Client
	env     env.Env
	log     *slog.Logger
	jobs    *jobs
	targets *targets
	pending *pending
	queue   atomic.Pointer[priorityqueue.PriorityQueue[reconcile.Request]]
	follow  *rate.Limiter
	now     func() time.Time
}

func newReconciler(c client.Client, e env.Env) *reconciler {
	return &reconciler{
		client: c, env: e, log: e.Log,
		jobs:    &jobs{byName: map[types.NamespacedName]*job{}},
		targets: newTargets(e.RESTConfig),
		pending: newPending(),
		follow:  rate.NewLimiter(followRate, followBurst),
		now:     time.Now,
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if isBoot(req.NamespacedName) {
		return ctrl.Result{}, nil // asked for with all objects of its source
	}
	obj := &kustomizev1.Kustomization{}
	err := r.client.Get(ctx, req.NamespacedName, obj)
	switch {
	case apierrors.IsNotFound(err):
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	j, earlier := r.jobs.of(req.NamespacedName, obj)
	if earlier != nil {
		earlier.release()
	}
	a := r.attempt(j, obj)
	j.current = a
	defer func() { j.current = nil }()
	switch {
	case !obj.DeletionTimestamp.IsZero():
		return a.finalize(ctx)
	case obj.Spec.Suspend:
		return ctrl.Result{}, nil
	}
	if err := status.AddFinalizer(ctx, r.client, obj, kustomizev1.KustomizationFinalizer, owner); err != nil {
		return ctrl.Result{}, conflictIsLater(err)
	}
	return a.finish(ctx, a.reconcile(ctx))
}

// conflictIsLater hides a conflict: the change that caused it brings the object
// again.
func conflictIsLater(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// attempt prepares a reconcile. The status is the one last written rather than
// the cache's, which may not have it yet.
func (r *reconciler) attempt(j *job, obj *kustomizev1.Kustomization) *attempt {
	known := j.look().status
	obj.Status = *known.DeepCopy()
	return &attempt{reconciler: r, job: j, obj: obj, before: obj.DeepCopy(), started: r.now()}
}

// forget releases what is held for an object that is gone.
func (r *reconciler) forget(name types.NamespacedName) {
	j := r.jobs.remove(name)
	if j == nil {
		return
	}
	j.release()
	if r.env.Metrics != nil {
		r.env.Metrics.DeleteDuration(reference(name))
	}
}

func reference(name types.NamespacedName) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: kustomizev1.KustomizationKind, Namespace: name.Namespace, Name: name.Name}
}

// later is a result for work that nobody waits for.
func later(after time.Duration) ctrl.Result {
	return ctrl.Result{RequeueAfter: after, Priority: new(priorityIdle)}
}

// interval is when an object in order is looked at again.
func interval(k *kustomizev1.Kustomization) time.Duration {
	return jitter.JitteredIntervalDuration(k.GetRequeueAfter())
}

func (a *attempt) name() types.NamespacedName { return client.ObjectKeyFromObject(a.obj) }

func (a *attempt) String() string { return fmt.Sprintf("Kustomization %s", a.name()) }
