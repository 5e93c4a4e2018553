package release

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/objects"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// owner is the field manager of what is written about releases, as in Flux.
const owner = "helm-controller"

// controller reconciles objects of kind HelmRelease.
type controller struct {
	client   client.Client
	live     client.Reader // past the cache
	env      env.Env
	clusters *clusters
	watches  *watches
	jobs     *jobs.Jobs
	count    func(name types.NamespacedName, action string)

	mu       sync.Mutex
	memories map[types.NamespacedName]*memory
}

// memory is what is known of a release between reconciles. It is lost with the
// process; then storage and cluster are looked at again.
type memory struct {
	drift *driftMemory

	mu sync.Mutex
	// written is the status as it was written last: the cache may lag behind.
	written *v2.HelmReleaseStatus
	// settled names what the release was made of when it was last in order, nil
	// if it was not.
	settled *inputs
	// held says that the same inputs are not tried again before a time.
	held      *inputs
	heldUntil time.Time
}

// inputs name everything that decides about a release.
type inputs struct {
	generation int64
	artifact   string
	values     string
	storage    string
}

// about is what a job was started with.
type about struct {
	generation int64
	artifact   string
	requested  string
	deleting   bool
}

func (r *controller) memoryOf(name types.NamespacedName) *memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memories[name]
	if m == nil {
		m = &memory{drift: &driftMemory{watches: r.watches, count: func(action string) { r.count(name, action) }}}
		r.memories[name] = m
	}
	return m
}

func (r *controller) forget(name types.NamespacedName) {
	r.mu.Lock()
	delete(r.memories, name)
	r.mu.Unlock()
	r.watches.forget(name)
}

// changed has a release looked at in which something happened. While a job works
// on it, that is most likely the job itself; what else it was is found when the
// job has ended.
func (r *controller) changed(name types.NamespacedName) {
	request := reconcile.Request{NamespacedName: name}
	if !r.jobs.IsRunning(request) {
		r.jobs.Enqueue(request)
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *controller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if job := r.jobs.Running(req); job != nil {
		return ctrl.Result{}, r.overtake(ctx, req, job)
	}
	if result, err, ok := r.jobs.Finished(req); ok && (err != nil || !r.inOrder(req.NamespacedName)) {
		return result, err
	}
	object := new(v2.HelmRelease)
	if err := r.client.Get(ctx, req.NamespacedName, object); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("read HelmRelease: %w", err)
	}
	if err := r.current(ctx, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !object.DeletionTimestamp.IsZero() {
		r.jobs.Run(req, about{deleting: true}, func(ctx context.Context, job *jobs.Job) (ctrl.Result, error) {
			return r.delete(ctx, job, object)
		})
		return ctrl.Result{}, nil
	}
	if err := status.AddFinalizer(ctx, r.client, object, objects.Finalizer, owner); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if object.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	return r.reconcile(ctx, req, object)
}

func (r *controller) inOrder(name types.NamespacedName) bool {
	r.mu.Lock()
	m := r.memories[name]
	r.mu.Unlock()
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settled != nil
}

// current makes object the newest there is: if the cache does not show the
// status that was written last, it is read from the API server.
func (r *controller) current(ctx context.Context, object *v2.HelmRelease) error {
	m := r.memoryOf(client.ObjectKeyFromObject(object))
	m.mu.Lock()
	lags := m.written != nil && !equality.Semantic.DeepEqual(m.written.History, object.Status.History)
	m.mu.Unlock()
	if !lags {
		return nil
	}
	return r.live.Get(ctx, client.ObjectKeyFromObject(object), object)
}

// overtake ends the waits of a running job if something newer is wanted.
func (r *controller) overtake(ctx context.Context, req ctrl.Request, job *jobs.Job) error {
	started, ok := job.About.(about)
	if !ok || started.deleting {
		return nil
	}
	object := new(v2.HelmRelease)
	if err := r.client.Get(ctx, req.NamespacedName, object); err != nil {
		return client.IgnoreNotFound(err)
	}
	if r.aboutOf(object) != started {
		job.Interrupt()
	}
	return nil
}

func (r *controller) aboutOf(object *v2.HelmRelease) about {
	a := about{generation: object.Generation, deleting: !object.DeletionTimestamp.IsZero()}
	a.requested, _ = meta.ReconcileAnnotationValue(object.Annotations)
	if object.HasChartRef() != object.HasChartTemplate() {
		a.artifact = artifactName(r.env.Store.Get(reference(object)))
	}
	return a
}

func artifactName(artifact *source.Artifact) string {
	if artifact == nil {
		return ""
	}
	return artifact.Revision + " " + artifact.Digest
}

// reconcile compares what is wanted with what is known, and starts a job if that
// differs.
func (r *controller) reconcile(ctx context.Context, req ctrl.Request, object *v2.HelmRelease) (ctrl.Result, error) {
	before := object.DeepCopy()
	health, err := healthOf(object.Spec.HealthCheckExprs)
	if err != nil {
		err = &obstacle{reason: meta.InvalidCELExpressionReason, stalls: true, err: err}
	}
	var w wanted
	if err == nil {
		w, err = r.prepare(ctx, object)
	}
	if err != nil {
		return r.hindered(ctx, before, object, err)
	}
	m := r.memoryOf(req.NamespacedName)
	now := r.inputsOf(object, w)
	if r.settled(m, now, object) {
		return r.acknowledge(ctx, before, object, m)
	}
	if wait := m.heldFor(now, object); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	started := r.aboutOf(object)
	started.artifact = artifactName(w.artifact)
	r.jobs.Run(req, started, func(ctx context.Context, job *jobs.Job) (ctrl.Result, error) {
		return r.work(ctx, job, work{before: before, object: object, want: w, health: health, inputs: now, memory: m})
	})
	return ctrl.Result{}, nil
}

// inputsOf names what decides about a release now.
func (r *controller) inputsOf(object *v2.HelmRelease, w wanted) inputs {
	return inputs{
		generation: object.Generation, artifact: artifactName(w.artifact), values: digestOfValues(w.values),
		storage: r.storageOf(object),
	}
}

// storageOf tells how Helm's storage of a release is now, "" if it cannot be
// watched.
func (r *controller) storageOf(object *v2.HelmRelease) string {
	if object.Spec.KubeConfig != nil {
		return ""
	}
	at := storageName{object.GetStorageNamespace(), releaseName(object)}
	return r.watches.followStorage(client.ObjectKeyFromObject(object), at)
}

// settled tells whether nothing happened since the release was found in order.
func (r *controller) settled(m *memory, now inputs, object *v2.HelmRelease) bool {
	if actionRequested(object) || now.storage == "" {
		return false
	}
	m.mu.Lock()
	same := m.settled != nil && *m.settled == now
	m.mu.Unlock()
	return same && m.drift.unchanged()
}

// actionRequested tells whether somebody asked for a release, or for failures to
// be forgotten.
func actionRequested(object *v2.HelmRelease) bool {
	token, requested := objects.Requested(object, object.Status.LastHandledReconcileAt)
	if !requested {
		return false
	}
	force, reset := object.Annotations[v2.ForceRequestAnnotation], object.Annotations[v2.ResetRequestAnnotation]
	return force == token && object.Status.LastHandledForceAt != token ||
		reset == token && object.Status.LastHandledResetAt != token
}

// heldFor returns how long the same is not tried again.
func (m *memory) heldFor(now inputs, object *v2.HelmRelease) time.Duration {
	if _, requested := objects.Requested(object, object.Status.LastHandledReconcileAt); requested {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == nil {
		return 0
	}
	same := *m.held
	same.storage = now.storage // a failed action changed it
	if same != now {
		return 0
	}
	return max(0, time.Until(m.heldUntil))
}

// acknowledge notes that a request was handled, which is all there is to do for
// a release that is in order.
func (r *controller) acknowledge(ctx context.Context, before, object *v2.HelmRelease, m *memory) (ctrl.Result, error) {
	if token, ok := meta.ReconcileAnnotationValue(object.Annotations); ok {
		object.Status.LastHandledReconcileAt = token
	}
	if conditions.HasAnyReason(object, meta.ReadyCondition, hindrances()...) {
		summarize(object)
		conditions.Delete(object, meta.StalledCondition)
		conditions.Delete(object, meta.ReconcilingCondition)
	}
	object.Status.ObservedGeneration = object.Generation
	if err := r.write(ctx, before, object, m); err != nil {
		return ctrl.Result{}, err
	}
	return jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: object.GetRequeueAfter()}), nil
}

// hindrances are the reasons with which Ready says that a release could not be
// looked after.
func hindrances() []string {
	return []string{
		v2.DependencyNotReadyReason, v2.ArtifactFailedReason, "SourceNotReady", "ValuesError", "HelmChartSyncErr",
		"AccessDenied", "InvalidChartReference", meta.InvalidCELExpressionReason,
	}
}

// write writes the status, and remembers it.
func (r *controller) write(ctx context.Context, before, now *v2.HelmRelease, m *memory) error {
	_, err := status.Write(ctx, r.client, before, now, owner)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	m.mu.Lock()
	m.written = now.Status.DeepCopy()
	m.mu.Unlock()
	return nil
}

// hindered says in the status why a release cannot be looked after.
func (r *controller) hindered(ctx context.Context, before, object *v2.HelmRelease, err error) (ctrl.Result, error) {
	var o *obstacle
	if !errors.As(err, &o) {
		return ctrl.Result{}, err
	}
	message := o.Error()
	if o.reason == v2.ArtifactFailedReason || o.stalls {
		conditions.Delete(object, meta.ReconcilingCondition)
	} else {
		conditions.MarkReconciling(object, meta.ProgressingReason, "Fulfilling prerequisites")
	}
	if o.stalls {
		conditions.MarkStalled(object, o.reason, "%s", message)
		object.Status.ObservedGeneration = object.Generation
	} else {
		conditions.Delete(object, meta.StalledCondition)
	}
	conditions.MarkFalse(object, meta.ReadyCondition, o.reason, "%s", message)
	if o.stalls || o.waits {
		if token, ok := meta.ReconcileAnnotationValue(object.Annotations); ok {
			object.Status.LastHandledReconcileAt = token
		}
	}
	if conditions.GetMessage(before, meta.ReadyCondition) != message {
		severity := eventv1.EventSeverityError
		if o.waits {
			severity = eventv1.EventSeverityInfo
		}
		r.env.Events.Event(object, severity, o.reason, message, nil)
	}
	if err := r.write(ctx, before, object, r.memoryOf(client.ObjectKeyFromObject(object))); err != nil {
		return ctrl.Result{}, err
	}
	if o.stalls || o.waits {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, err
}
