package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/runtime/predicates"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	crsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// owner is the field manager of the status: Flux's name.
const owner = "source-controller"

// finalizer is one that an object may have from the time when Flux's own
// controller served it. Ours needs none: what an object left behind is found
// when the process starts.
const finalizer = sourcev1.SourceFinalizer

const (
	// workers is how many repositories are fetched at a time. They wait for the
	// network most of the time, each no longer than the timeout of its object.
	workers = 2 * env.Workers

	// A failed fetch is tried again after this time, doubled each time.
	retryMin = 5 * time.Second
	retryMax = 2 * time.Minute
)

// indexInclude lists objects by those that they include, "<namespace>/<name>".
const indexInclude = "bothy.include"

// Setup registers the controller with the manager.
func Setup(mgr ctrl.Manager, e env.Env) error {
	r := newReconciler(mgr.GetClient(), e)
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &sourcev1.GitRepository{}, indexInclude, func(o client.Object) []string {
		var keys []string
		for _, include := range o.(*sourcev1.GitRepository).Spec.Include {
			keys = append(keys, o.GetNamespace()+"/"+include.GitRepositoryRef.Name)
		}
		return keys
	}); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(r.removeLeftovers)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("gitrepository").
		For(&sourcev1.GitRepository{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicates.ReconcileRequestedPredicate{}))).
		WatchesRawSource(crsource.Func(r.attach)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

func keyOf(name types.NamespacedName) source.Key {
	return source.Key{Kind: sourcev1.GitRepositoryKind, Namespace: name.Namespace, Name: name.Name}
}

type reconciler struct {
	client client.Client
	env    env.Env
	log    *slog.Logger
	dir    string
	now    func() time.Time

	mu   sync.Mutex
	jobs map[types.NamespacedName]*job
}

func newReconciler(c client.Client, e env.Env) *reconciler {
	return &reconciler{
		client: c, env: e, log: e.Log, now: time.Now,
		dir:  filepath.Join(e.StateDir, "sources", "git"),
		jobs: map[types.NamespacedName]*job{},
	}
}

// job is what is remembered of one object between reconciles. It belongs to the
// reconcile of the object, of which there is one at a time.
type job struct {
	uid    types.UID
	dir    string
	mirror *mirror.Mirror
	status sourcev1.GitRepositoryStatus // as last written
	// made identifies the object's fields and the included artifacts that the
	// artifact in the store was made with.
	made string
	// restored says that the artifact of an earlier process was looked for.
	restored bool
	fetched  time.Time // the last attempt
	failures int       // in a row
}

// attach has objects reconciled whose includes changed.
func (r *reconciler) attach(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.env.Store.Subscribe(ctx, func(key source.Key) {
		if ctx.Err() != nil || key.Kind != sourcev1.GitRepositoryKind {
			return
		}
		var list sourcev1.GitRepositoryList
		if err := r.client.List(ctx, &list, client.MatchingFields{indexInclude: key.Namespace + "/" + key.Name}, client.UnsafeDisableDeepCopy); err != nil {
			return // the cache is ending
		}
		for i := range list.Items {
			queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	})
	return nil
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if keyOf(req.NamespacedName) == source.BootKey {
		return ctrl.Result{}, nil // whatever asks for it: package boot keeps it
	}
	obj := &sourcev1.GitRepository{}
	err := r.client.Get(ctx, req.NamespacedName, obj)
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, r.forget(req.NamespacedName)
	case err != nil:
		return ctrl.Result{}, err
	case !obj.DeletionTimestamp.IsZero():
		if err := status.RemoveFinalizer(ctx, r.client, obj, finalizer, owner); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		return ctrl.Result{}, r.forget(req.NamespacedName)
	}
	j, err := r.job(req.NamespacedName, obj)
	if err != nil {
		return ctrl.Result{}, err
	}
	obj.Status = *j.status.DeepCopy()
	a := &attempt{reconciler: r, job: j, obj: obj, before: obj.DeepCopy(), key: keyOf(req.NamespacedName)}
	return a.run(ctx)
}

// job returns the job of an object. An earlier object of the same name is
// forgotten.
func (r *reconciler) job(name types.NamespacedName, o *sourcev1.GitRepository) (*job, error) {
	r.mu.Lock()
	j := r.jobs[name]
	r.mu.Unlock()
	if j != nil && j.uid == o.UID {
		return j, nil
	}
	if j != nil {
		if err := r.forget(name); err != nil {
			return nil, err
		}
	}
	j = &job{uid: o.UID, dir: filepath.Join(r.dir, dirName(o)), status: *o.Status.DeepCopy()}
	r.mu.Lock()
	r.jobs[name] = j
	r.mu.Unlock()
	return j, nil
}

// dirName is unique among all objects that there ever were.
func dirName(o *sourcev1.GitRepository) string {
	return o.Namespace + "-" + o.Name + "-" + string(o.UID)
}

// forget removes the artifact and the mirror of an object that is gone.
func (r *reconciler) forget(name types.NamespacedName) error {
	r.mu.Lock()
	j := r.jobs[name]
	delete(r.jobs, name)
	r.mu.Unlock()
	if j == nil {
		return nil
	}
	r.env.Store.Set(keyOf(name), nil)
	if err := os.RemoveAll(j.dir); err != nil {
		return fmt.Errorf("remove the mirror of GitRepository %s: %w", name, err)
	}
	return nil
}

// removeLeftovers deletes mirrors of objects that were deleted while no process
// of ours ran. It runs when the cache holds all objects.
func (r *reconciler) removeLeftovers(ctx context.Context) error {
	entries, err := os.ReadDir(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("list the mirrors of GitRepositories: %w", err)
	}
	var list sourcev1.GitRepositoryList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	keep := map[string]bool{}
	for i := range list.Items {
		keep[dirName(&list.Items[i])] = true
	}
	for _, entry := range entries {
		if keep[entry.Name()] || r.inUse(entry.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.dir, entry.Name())); err != nil {
			r.log.Warn("remove the mirror of a GitRepository that is gone", "dir", entry.Name(), "error", err)
		}
	}
	return nil
}

// inUse protects mirrors of objects that came after the list was made.
func (r *reconciler) inUse(dir string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if strings.HasSuffix(j.dir, string(filepath.Separator)+dir) {
			return true
		}
	}
	return false
}
