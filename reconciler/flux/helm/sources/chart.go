package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/objects"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// archives is the kind of the files on disk that hold charts.
const archives = "charts"

// chartController reconciles objects of kind HelmChart.
type chartController struct {
	client client.Client
	store  *source.Store
	events events.Recorder
	files  disk
	access accessor
	log    *slog.Logger
	jobs   *jobs.Jobs

	mu   sync.Mutex
	seen map[types.NamespacedName]memory
}

// memory is what a chart was last built from, so that it is not built again from
// the same.
type memory struct {
	generation int64
	source     string // see inputs
	at         time.Time
}

func sourceOf(c *sourcev1.HelmChart) source.Key {
	return source.Key{Kind: c.Spec.SourceRef.Kind, Namespace: c.Namespace, Name: c.Spec.SourceRef.Name}
}

// followArtifacts has charts looked at whose source delivers something new, as long as the controller runs.
func (r *chartController) followArtifacts(ctx context.Context, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.store.Subscribe(ctx, func(k source.Key) { r.sourceChanged(ctx, k) })
	return nil
}

// sourceChanged has the charts of a source looked at.
func (r *chartController) sourceChanged(ctx context.Context, k source.Key) {
	if k.Kind == sourcev1.HelmChartKind {
		return
	}
	// The list comes from the cache; it waits for nothing once that is filled.
	go func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for _, request := range r.of(ctx, k) {
			r.jobs.Enqueue(request)
		}
	}()
}

// ofRepository lists the charts of a HelmRepository, which may be in a registry
// and then never has an artifact.
func (r *chartController) ofRepository(ctx context.Context, object client.Object) []reconcile.Request {
	return r.of(ctx, storeKey(sourcev1.HelmRepositoryKind, keyOf(object)))
}

func (r *chartController) of(ctx context.Context, k source.Key) []reconcile.Request {
	list := new(sourcev1.HelmChartList)
	err := r.client.List(ctx, list, client.InNamespace(k.Namespace), client.MatchingFields{sourceIndex: k.String()})
	if err != nil {
		r.log.Debug("cannot list the charts of a source", "source", k.String(), "error", err)
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i] = reconcile.Request{NamespacedName: keyOf(&list.Items[i])}
	}
	return requests
}

// Reconcile implements reconcile.Reconciler.
func (r *chartController) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if r.jobs.Running(req) != nil {
		return ctrl.Result{}, nil
	}
	if result, err, ok := r.jobs.Finished(req); ok {
		return result, err
	}
	object := new(sourcev1.HelmChart)
	err := r.client.Get(ctx, req.NamespacedName, object)
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, r.forget(req.NamespacedName)
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("read HelmChart: %w", err)
	case !object.DeletionTimestamp.IsZero():
		return ctrl.Result{}, status.RemoveFinalizer(ctx, r.client, object, objects.Finalizer, owner)
	case object.Spec.Suspend:
		return ctrl.Result{}, nil
	}
	if !r.published(object) {
		r.adopt(object)
	}
	if after := r.due(ctx, object); after > 0 {
		return ctrl.Result{RequeueAfter: after}, nil
	}
	r.jobs.Run(req, nil, func(ctx context.Context, job *jobs.Job) (ctrl.Result, error) {
		return r.build(ctx, job, object)
	})
	return ctrl.Result{}, nil
}

// forget drops what is known and kept of a chart that is gone.
func (r *chartController) forget(name types.NamespacedName) error {
	r.mu.Lock()
	delete(r.seen, name)
	r.mu.Unlock()
	key := storeKey(sourcev1.HelmChartKind, name)
	if r.store.Get(key) != nil {
		r.store.Set(key, nil)
	}
	return r.files.remove(archives, name.Namespace, name.Name, "_*.tgz")
}

func (r *chartController) published(object *sourcev1.HelmChart) bool {
	held := r.store.Get(storeKey(sourcev1.HelmChartKind, keyOf(object)))
	return held != nil && object.Status.Artifact != nil && held.Digest == object.Status.Artifact.Digest
}

// archivePath is where the archive of a digest is kept. Underscores occur in no
// name of an object, so no two objects share a path.
func (r *chartController) archivePath(object *sourcev1.HelmChart, digest string) string {
	return r.files.path(archives, object.Namespace, object.Name, "_"+digest[len("sha256:"):][:16]+".tgz")
}

// adopt publishes the archive that an earlier process built, if it is the one of
// the status.
func (r *chartController) adopt(object *sourcev1.HelmChart) {
	artifact := object.Status.Artifact
	if artifact == nil || len(artifact.Digest) < len("sha256:")+16 || artifact.Size == nil {
		return
	}
	digest, _, err := digestOfFile(r.archivePath(object, artifact.Digest))
	if err == nil && digest == artifact.Digest {
		r.publish(object)
	}
}

func (r *chartController) publish(object *sourcev1.HelmChart) {
	artifact := object.Status.Artifact
	r.store.Set(storeKey(sourcev1.HelmChartKind, keyOf(object)), &source.Artifact{
		Revision: artifact.Revision, Digest: artifact.Digest, Metadata: artifact.Metadata,
		OriginRevision: object.Status.ObservedSourceArtifactRevision,
		Size:           *artifact.Size, At: artifact.LastUpdateTime.Time,
		Files: onDisk{
			path: r.archivePath(object, artifact.Digest), name: fileName(object.Status.ObservedChartName, artifact.Revision),
			digest: artifact.Digest, at: artifact.LastUpdateTime.Time,
		},
	})
}

// due returns how long the chart is still what its source has, as far as is
// known, or 0 if it has to be built.
func (r *chartController) due(ctx context.Context, object *sourcev1.HelmChart) time.Duration {
	_, requested := objects.Requested(object, object.Status.LastHandledReconcileAt)
	if requested || object.Generation != object.Status.ObservedGeneration || !r.published(object) {
		return 0
	}
	inputs := r.inputs(ctx, object)
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.seen[keyOf(object)]
	if !ok || last.generation != object.Generation || last.source != inputs {
		return 0
	}
	if polled(object, r.store) {
		return max(0, time.Until(last.at.Add(object.GetRequeueAfter())))
	}
	// Nothing happens until the source changes, and that will tell.
	return object.GetRequeueAfter()
}

// polled tells whether a chart can change without its source object telling: in
// a registry.
func polled(object *sourcev1.HelmChart, store *source.Store) bool {
	return object.Spec.SourceRef.Kind == sourcev1.HelmRepositoryKind && store.Get(sourceOf(object)) == nil
}

// inputs names everything that the artifact of the source contributes. Of a
// source that can name its directories, that is only those that the chart reads.
func (r *chartController) inputs(ctx context.Context, object *sourcev1.HelmChart) string {
	artifact := r.store.Get(sourceOf(object))
	switch {
	case object.Spec.SourceRef.Kind == sourcev1.HelmRepositoryKind:
		return r.repositoryInputs(ctx, object, artifact)
	case artifact == nil:
		return ""
	case followsRevision(object):
		return artifact.Revision + " " + artifact.Digest
	}
	return treeInputs(artifact, object)
}

// repositoryInputs names a repository as it is configured, and its index.
func (r *chartController) repositoryInputs(ctx context.Context, object *sourcev1.HelmChart, index *source.Artifact) string {
	repository := new(sourcev1.HelmRepository)
	name := types.NamespacedName{Namespace: object.Namespace, Name: object.Spec.SourceRef.Name}
	if err := r.client.Get(ctx, name, repository); err != nil {
		return ""
	}
	inputs := fmt.Sprintf("%s %d", repository.UID, repository.Generation)
	if index != nil {
		inputs += " " + index.Digest
	}
	return inputs
}

func followsRevision(object *sourcev1.HelmChart) bool {
	return object.Spec.ReconcileStrategy == sourcev1.ReconcileStrategyRevision
}

// build makes the artifact the one that the object asks for, and says in the
// status how that went.
func (r *chartController) build(ctx context.Context, job *jobs.Job, object *sourcev1.HelmChart) (ctrl.Result, error) {
	now := object.DeepCopy()
	inputs := r.inputs(ctx, object)
	failure := r.refresh(ctx, job, object, now)
	now.Status.ObservedGeneration = object.Generation
	if token, ok := meta.ReconcileAnnotationValue(object.Annotations); ok {
		now.Status.LastHandledReconcileAt = token
	}
	if _, err := status.Write(ctx, r.client, object, now, owner); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if now.Status.Artifact != nil && !r.published(now) && failure == nil {
		r.publish(now)
		r.tidy(now)
	}
	return r.outcome(object, inputs, failure)
}

// outcome says when to look again.
func (r *chartController) outcome(object *sourcev1.HelmChart, inputs string, failure error) (ctrl.Result, error) {
	var problem *problem
	switch {
	case failure == nil:
		r.mu.Lock()
		r.seen[keyOf(object)] = memory{object.Generation, inputs, time.Now()}
		r.mu.Unlock()
		return jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: object.GetRequeueAfter()}), nil
	case errors.As(failure, &problem) && problem.waits:
		// The source tells when it has something.
		return ctrl.Result{}, nil
	case errors.As(failure, &problem) && problem.stalls:
		return jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: object.GetRequeueAfter()}), nil
	}
	return ctrl.Result{}, failure
}

// tidy removes archives that were replaced.
func (r *chartController) tidy(object *sourcev1.HelmChart) {
	keep := r.archivePath(object, object.Status.Artifact.Digest)
	if err := r.files.remove(archives, object.Namespace, object.Name, "_*.tgz", keep); err != nil {
		r.log.Warn("cannot remove archives of charts that were replaced", "chart", keyOf(object).String(), "error", err)
	}
}

// problem is why there is no newer artifact.
type problem struct {
	condition, reason string
	waits             bool // for the source
	stalls            bool // nothing changes by trying again
	err               error
}

// Error implements error.
func (p *problem) Error() string { return p.err.Error() }

// Unwrap gives the cause.
func (p *problem) Unwrap() error { return p.err }

func fetchFailed(err error) error {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: "ChartPullError", err: err}
}

func buildFailed(reason string, err error) error {
	return &problem{condition: sourcev1.BuildFailedCondition, reason: reason, err: err}
}

// refresh brings the artifact in the status of now up to date.
func (r *chartController) refresh(ctx context.Context, job *jobs.Job, object, now *sourcev1.HelmChart) error {
	built, err := r.obtain(ctx, job, object, now)
	if err == nil {
		err = r.record(object, now, built)
	}
	if err == nil {
		return nil
	}
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{condition: sourcev1.FetchFailedCondition, reason: meta.FailedReason, err: err}
	}
	objects.SourceFailed(now, p.condition, p.reason, p)
	switch {
	case p.stalls:
		objects.Stalled(now, p.reason, p)
	default:
		objects.Retrying(now, p)
	}
	if conditions.GetMessage(object, meta.ReadyCondition) != conditions.GetMessage(now, meta.ReadyCondition) {
		r.events.Event(now, eventv1.EventSeverityError, p.reason, p.Error(), nil)
	}
	return p
}

// built is a chart.
type built struct {
	name, version string
	archive       []byte   // nil: the artifact that is there is the one
	values        []string // values files that were merged
	packaged      bool     // made here, and not just fetched
	source        string   // revision of the source
	metadata      map[string]string
}

// record puts a chart on disk and into the status.
func (r *chartController) record(object, now *sourcev1.HelmChart, b *built) error {
	reason, message := sourcev1.ChartPullSucceededReason, fmt.Sprintf("pulled '%s' chart with version '%s'", b.name, b.version)
	if b.packaged {
		reason = sourcev1.ChartPackageSucceededReason
		message = fmt.Sprintf("packaged '%s' chart with version '%s'", b.name, b.version)
	}
	if len(b.values) > 0 {
		message += fmt.Sprintf(" and merged values files %v", b.values)
	}
	if b.archive != nil {
		digest, size := digestOf(b.archive), int64(len(b.archive))
		if err := r.files.write(r.archivePath(object, digest), b.archive); err != nil {
			return &problem{condition: sourcev1.StorageOperationFailedCondition, reason: "ArchiveOperationFailed", err: err}
		}
		r.replaceArtifact(now, b, digest, size, message)
		now.Status.ObservedSourceArtifactRevision = b.source
		now.Status.ObservedChartName = b.name
		now.Status.ObservedValuesFiles = b.values
	}
	objects.SourceSucceeded(now, reason, message)
	return nil
}

func (r *chartController) replaceArtifact(now *sourcev1.HelmChart, b *built, digest string, size int64, message string) {
	if old := now.Status.Artifact; old != nil && old.Digest == digest && old.Revision == b.version {
		return
	}
	path := fmt.Sprintf("helmchart/%s/%s/%s", now.Namespace, now.Name, fileName(b.name, b.version))
	now.Status.Artifact = &meta.Artifact{
		Path: path, URL: artifactURL(path), Digest: digest, Revision: b.version,
		LastUpdateTime: metav1.Now(), Size: &size, Metadata: b.metadata,
	}
	now.Status.URL = now.Status.Artifact.URL
	reason := sourcev1.ChartPullSucceededReason
	if b.packaged {
		reason = sourcev1.ChartPackageSucceededReason
	}
	r.events.Event(now, eventv1.EventSeverityInfo, reason, message,
		map[string]string{eventv1.MetaRevisionKey: b.version, eventv1.MetaDigestKey: digest})
}
