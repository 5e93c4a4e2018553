package sources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/jitter"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/objects"
	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// The kinds of files on disk and the suffixes of their names.
const (
	indexes       = "index"
	indexSuffix   = ".yaml"
	fetchedSuffix = ".json"
	indexName     = "index.yaml"
)

// repositories reconciles objects of kind HelmRepository.
type repositories struct {
	client client.Client
	store  *source.Store
	events events.Recorder
	files  disk
	access accessor
	log    *slog.Logger
	jobs   *jobs.Jobs

	mu      sync.Mutex
	fetched map[types.NamespacedName]time.Time
}

// Reconcile implements reconcile.Reconciler.
func (r *repositories) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if r.jobs.Running(req) != nil {
		return ctrl.Result{}, nil
	}
	if result, err, ok := r.jobs.Finished(req); ok {
		return result, err
	}
	object := new(sourcev1.HelmRepository)
	err := r.client.Get(ctx, req.NamespacedName, object)
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, r.forget(req.NamespacedName)
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("read HelmRepository: %w", err)
	case !object.DeletionTimestamp.IsZero():
		return ctrl.Result{}, status.RemoveFinalizer(ctx, r.client, object, objects.Finalizer, owner)
	case object.Spec.Suspend:
		return ctrl.Result{}, nil
	case object.Spec.Type == sourcev1.HelmRepositoryTypeOCI:
		return ctrl.Result{}, r.leave(ctx, object)
	}
	if !r.adopted(object) {
		r.adopt(object)
	}
	if after := r.due(object); after > 0 {
		return ctrl.Result{RequeueAfter: after}, nil
	}
	r.jobs.Run(req, nil, func(ctx context.Context, job *jobs.Job) (ctrl.Result, error) {
		return r.fetch(ctx, job, object)
	})
	return ctrl.Result{}, nil
}

func keyOf(o client.Object) types.NamespacedName { return client.ObjectKeyFromObject(o) }

func storeKey(kind string, name types.NamespacedName) source.Key {
	return source.Key{Kind: kind, Namespace: name.Namespace, Name: name.Name}
}

// forget drops what is known and kept of a repository that is gone.
func (r *repositories) forget(name types.NamespacedName) error {
	r.mu.Lock()
	delete(r.fetched, name)
	r.mu.Unlock()
	key := storeKey(sourcev1.HelmRepositoryKind, name)
	if r.store.Get(key) != nil {
		r.store.Set(key, nil)
	}
	return r.files.remove(indexes, name.Namespace, name.Name, ".*")
}

// leave makes sure that a registry, of which nothing is fetched before a chart
// asks for it, does not carry the status of the index it once was. Like Flux, we
// write no status for it.
func (r *repositories) leave(ctx context.Context, object *sourcev1.HelmRepository) error {
	if err := r.forget(keyOf(object)); err != nil {
		r.log.Warn("cannot remove an index that is no longer used", "repository", keyOf(object).String(), "error", err)
	}
	now := object.DeepCopy()
	now.Status = sourcev1.HelmRepositoryStatus{ObservedGeneration: object.Status.ObservedGeneration}
	_, err := status.Write(ctx, r.client, object, now, owner)
	return client.IgnoreNotFound(err)
}

func (r *repositories) adopted(object *sourcev1.HelmRepository) bool {
	return r.store.Get(storeKey(sourcev1.HelmRepositoryKind, keyOf(object))) != nil
}

// adopt publishes the index that an earlier process fetched, if it is the one of
// the status: a repository that cannot be reached is then as good as before.
func (r *repositories) adopt(object *sourcev1.HelmRepository) {
	artifact := object.Status.Artifact
	if artifact == nil {
		return
	}
	path := r.files.path(indexes, object.Namespace, object.Name, indexSuffix)
	digest, _, err := digestOfFile(path)
	if err != nil || digest != artifact.Digest {
		return
	}
	r.publish(object, path, artifact)
}

func (r *repositories) publish(object *sourcev1.HelmRepository, path string, artifact *meta.Artifact) {
	r.store.Set(storeKey(sourcev1.HelmRepositoryKind, keyOf(object)), &source.Artifact{
		Revision: artifact.Revision, Digest: artifact.Digest, Size: *artifact.Size, At: artifact.LastUpdateTime.Time,
		Files: onDisk{path: path, name: indexName, digest: artifact.Digest, at: artifact.LastUpdateTime.Time},
	})
}

// due returns how long the index is still new enough, or 0 if it has to be
// fetched.
func (r *repositories) due(object *sourcev1.HelmRepository) time.Duration {
	_, requested := objects.Requested(object, object.Status.LastHandledReconcileAt)
	if requested || object.Generation != object.Status.ObservedGeneration || !r.adopted(object) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.fetched[keyOf(object)]
	if !ok {
		return 0
	}
	return max(0, time.Until(last.Add(object.GetRequeueAfter())))
}

// fetch gets the index and says in the status how that went.
func (r *repositories) fetch(ctx context.Context, job *jobs.Job, object *sourcev1.HelmRepository) (ctrl.Result, error) {
	now := object.DeepCopy()
	failure := r.refresh(ctx, job, now)
	if failure == nil {
		r.mu.Lock()
		r.fetched[keyOf(object)] = time.Now()
		r.mu.Unlock()
	}
	now.Status.ObservedGeneration = object.Generation
	if token, ok := meta.ReconcileAnnotationValue(object.Annotations); ok {
		now.Status.LastHandledReconcileAt = token
	}
	if _, err := status.Write(ctx, r.client, object, now, owner); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if failure != nil {
		return ctrl.Result{}, failure
	}
	return jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: object.GetRequeueAfter()}), nil
}

// refresh brings the artifact of the object up to date.
func (r *repositories) refresh(ctx context.Context, job *jobs.Job, now *sourcev1.HelmRepository) error {
	got, err := r.download(ctx, job, now)
	if err != nil {
		reason := meta.FailedReason
		if errors.Is(err, errAccess) {
			reason = sourcev1.AuthenticationFailedReason
		}
		err = fmt.Errorf("failed to fetch Helm repository index: %w", err)
		r.events.Event(now, eventv1.EventSeverityError, reason, err.Error(), nil)
		objects.SourceFailed(now, sourcev1.FetchFailedCondition, reason, err)
		objects.Retrying(now, err)
		return err
	}
	if old := now.Status.Artifact; old == nil || old.Digest != got.digest {
		now.Status.Artifact = &meta.Artifact{
			Path:   fmt.Sprintf("helmrepository/%s/%s/index-%s.yaml", now.Namespace, now.Name, got.digest[len("sha256:"):]),
			Digest: got.digest, Revision: got.digest, LastUpdateTime: metav1.Now(), Size: &got.size,
		}
		now.Status.Artifact.URL = artifactURL(now.Status.Artifact.Path)
		now.Status.URL = now.Status.Artifact.URL
		r.events.Event(now, eventv1.EventSeverityInfo, "NewArtifact",
			fmt.Sprintf("stored fetched index of size %d bytes from '%s'", got.size, now.Spec.URL),
			map[string]string{eventv1.MetaRevisionKey: got.digest, eventv1.MetaDigestKey: got.digest})
	}
	objects.SourceSucceeded(now, meta.SucceededReason, fmt.Sprintf("stored artifact: revision '%s'", got.digest))
	r.publishIfNew(now)
	return nil
}

// artifactURL stands where Flux names its artifact server. There is none here:
// artifacts are handed on within the process.
func artifactURL(path string) string { return "bothy://" + path }

func (r *repositories) publishIfNew(object *sourcev1.HelmRepository) {
	held := r.store.Get(storeKey(sourcev1.HelmRepositoryKind, keyOf(object)))
	if held == nil || held.Digest != object.Status.Artifact.Digest {
		path := r.files.path(indexes, object.Namespace, object.Name, indexSuffix)
		r.publish(object, path, object.Status.Artifact)
	}
}

// errAccess is in the chain of errors about credentials.
var errAccess = errors.New("credentials")

// fetchedIndex is what is known of an index on disk; it is kept beside it.
type fetchedIndex struct {
	URL        string            `json:"url"`
	Digest     string            `json:"digest"`
	Validators remote.Validators `json:"validators"`
}

type downloaded struct {
	digest string
	size   int64
}

// download makes the file of the index the server's.
func (r *repositories) download(ctx context.Context, job *jobs.Job, object *sourcev1.HelmRepository) (downloaded, error) {
	access, _, err := r.access.access(ctx, object)
	if err != nil {
		return downloaded{}, fmt.Errorf("%w: %w", errAccess, err)
	}
	repository, err := remote.NewRepository(object.Spec.URL, access, object.Spec.PassCredentials)
	if err != nil {
		return downloaded{}, err
	}
	defer repository.Close()
	path := r.files.path(indexes, object.Namespace, object.Name, indexSuffix)
	held := r.held(object, path)

	var now remote.Validators
	var unchanged bool
	temporary := path + ".fetched"
	err = r.files.fill(temporary, func(w io.Writer) (err error) {
		job.Wait(func() { now, unchanged, err = repository.FetchIndex(ctx, held.Validators, w) })
		return err
	})
	if err != nil {
		return downloaded{}, err
	}
	if unchanged {
		digest, size, err := digestOfFile(path)
		if err != nil {
			return downloaded{}, fmt.Errorf("read cached index: %w", err)
		}
		return downloaded{digest, size}, os.Remove(temporary)
	}
	return r.accept(object, repositoryFile{temporary, path}, now)
}

// repositoryFile is an index that was fetched and the place where it belongs.
type repositoryFile struct{ fetched, final string }

// accept checks that what was fetched is an index and puts it in place.
func (r *repositories) accept(object *sourcev1.HelmRepository, file repositoryFile, v remote.Validators) (downloaded, error) {
	if err := checkIndexFile(file.fetched); err != nil {
		return downloaded{}, errors.Join(err, os.Remove(file.fetched))
	}
	digest, size, err := digestOfFile(file.fetched)
	if err != nil {
		return downloaded{}, err
	}
	if err := os.Rename(file.fetched, file.final); err != nil {
		return downloaded{}, err
	}
	beside := r.files.path(indexes, object.Namespace, object.Name, fetchedSuffix)
	known := fetchedIndex{URL: object.Spec.URL, Digest: digest, Validators: v}
	if err := durable.WriteJSON(beside, known, 0o600); err != nil {
		return downloaded{}, err
	}
	return downloaded{digest, size}, nil
}

func checkIndexFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return remote.CheckIndex(f)
}

// held returns what is known of the index on disk, if it is still the one that
// was fetched from this URL.
func (r *repositories) held(object *sourcev1.HelmRepository, path string) fetchedIndex {
	var known fetchedIndex
	beside := r.files.path(indexes, object.Namespace, object.Name, fetchedSuffix)
	if err := durable.ReadJSON(beside, &known); err != nil || known.URL != object.Spec.URL {
		return fetchedIndex{}
	}
	if digest, _, err := digestOfFile(path); err != nil || digest != known.Digest {
		return fetchedIndex{}
	}
	return known
}
