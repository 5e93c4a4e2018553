package release

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
)

// work is what a job works with.
type work struct {
	before, object *v2.HelmRelease
	want           wanted
	health         map[schema.GroupKind]*cel.StatusEvaluator
	inputs         inputs
	memory         *memory
}

// work is a job: it makes an attempt and says in the status what came of it.
func (r *controller) work(ctx context.Context, job *jobs.Job, w work) (ctrl.Result, error) {
	began := time.Now()
	save := func(ctx context.Context) error {
		err := r.write(ctx, w.before, w.object, w.memory)
		w.before = w.object.DeepCopy()
		return err
	}
	w.memory.mu.Lock()
	w.memory.settled, w.memory.held = nil, nil
	w.memory.mu.Unlock()

	out, err := r.attempt(ctx, job, &w, save)
	if ctx.Err() != nil {
		return ctrl.Result{}, ctx.Err()
	}
	if token, ok := meta.ReconcileAnnotationValue(w.object.Annotations); ok {
		w.object.Status.LastHandledReconcileAt = token
	}
	if err == nil && out.result.RequeueAfter != time.Millisecond {
		w.object.Status.ObservedGeneration = w.object.Generation
	}
	if err := save(ctx); err != nil {
		return ctrl.Result{}, err
	}
	r.remember(w, out, err)
	if r.env.Metrics != nil {
		r.env.Metrics.RecordDuration(corev1.ObjectReference{
			Kind: v2.HelmReleaseKind, Namespace: w.object.Namespace, Name: w.object.Name,
		}, began)
	}
	if errors.Is(err, errAgain) {
		// Repeating is part of the strategy, and no failure of ours.
		return ctrl.Result{Requeue: true}, nil //nolint:staticcheck // only this asks for a growing pause
	}
	return out.result, err
}

// remember notes what came of an attempt for the reconciles to come.
func (r *controller) remember(w work, out outcome, err error) {
	now := inputs{
		generation: w.object.Generation, artifact: artifactName(w.want.artifact), values: digestOfValues(w.want.values),
		storage: out.storage,
	}
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	switch {
	case err != nil:
	case out.inOrder:
		w.memory.settled = &now
	case w.object.GetActiveRetry(false) != nil && out.result.RequeueAfter > time.Millisecond:
		w.memory.held, w.memory.heldUntil = &now, time.Now().Add(out.result.RequeueAfter)
	}
}

// attempt reads the chart, connects to the cluster and takes the steps.
func (r *controller) attempt(ctx context.Context, job *jobs.Job, w *work, save func(context.Context) error) (outcome, error) {
	// What hindered before does so no more.
	if conditions.HasAnyReason(w.object, meta.ReadyCondition, hindrances()...) {
		conditions.MarkUnknown(w.object, meta.ReadyCondition, meta.ProgressingReason, "reconciliation in progress")
		conditions.Delete(w.object, meta.StalledCondition)
	}
	a, err := r.newAttempt(ctx, job, w.object, w.health)
	if err != nil {
		conditions.MarkFalse(w.object, meta.ReadyCondition, "RESTClientError", "%s", err)
		return outcome{}, err
	}
	a.save = save
	a.want = w.want
	if a.meta, err = a.want.metadata(); err != nil && r.newer(w) {
		// The artifact was replaced, and its file with it.
		a.want = w.want
		a.meta, err = a.want.metadata()
	}
	if err != nil {
		err = fmt.Errorf("could not load chart: %w", err)
		if conditions.GetMessage(w.object, meta.ReadyCondition) != err.Error() {
			r.env.Events.Event(w.object, eventv1.EventSeverityError, v2.ArtifactFailedReason, err.Error(), nil)
		}
		conditions.MarkFalse(w.object, meta.ReadyCondition, v2.ArtifactFailedReason, "%s", err)
		return outcome{}, err
	}
	out, err := a.run(ctx)
	if err != nil && !errors.Is(err, errAgain) && ctx.Err() == nil {
		a.log.Warn("release is not in order", "error", err)
	}
	return out, err
}

// newer takes the artifact that the source has now, and tells whether it is
// another one.
func (r *controller) newer(w *work) bool {
	now := r.env.Store.Get(reference(w.object))
	if now == nil || now == w.want.artifact {
		return false
	}
	w.want.artifact = now
	return true
}

// newAttempt connects to the cluster of a release.
func (r *controller) newAttempt(ctx context.Context, job *jobs.Job, object *v2.HelmRelease, health map[schema.GroupKind]*cel.StatusEvaluator) (*attempt, error) {
	target, err := r.clusters.of(ctx, object)
	if err != nil {
		return nil, err
	}
	dynamic, err := target.dynamic()
	if err != nil {
		return nil, err
	}
	name := client.ObjectKeyFromObject(object)
	log := r.env.Log.With(slog.String("helmrelease", name.String()))
	memory := r.memoryOf(name).drift
	if !target.local {
		memory = &driftMemory{count: memory.count}
	}
	return &attempt{
		object: object, cluster: target, events: r.env.Events, log: log, began: time.Now(),
		actionLog:    &lastLines{next: log.Handler()},
		storagePrint: func() string { return r.storageOf(object) },
		drift:        driftFinder{driftMemory: memory, release: name},
		waiter: &waiter{
			objects: dynamic, ctx: ctx, interrupted: job.Interrupted(), aside: job.Wait, custom: health,
		},
	}, nil
}
