package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fluxcd/pkg/runtime/predicates"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// owner is the field manager of the status: Flux's name.
const owner = "source-controller"

// finalizer is one that an object may have from the time when Flux's own
// controller served it. Ours needs none: what an object left behind is found
// when the process starts.
const finalizer = sourcev1.SourceFinalizer

// Setup registers the controller with the manager.
func Setup(mgr ctrl.Manager, e env.Env) error {
	r := newReconciler(mgr.GetClient(), e)
	if err := mgr.Add(manager.RunnableFunc(r.removeLeftovers)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("ocirepository").
		For(&sourcev1.OCIRepository{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicates.ReconcileRequestedPredicate{}))).
		WithOptions(controller.Options{MaxConcurrentReconciles: env.Workers}).
		Complete(r)
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
		dir:  filepath.Join(e.StateDir, "sources", "oci"),
		jobs: map[types.NamespacedName]*job{},
	}
}

// job is what is remembered of one object between reconciles. It belongs to the
// reconcile of the object, of which there is one at a time.
type job struct {
	uid    types.UID
	dir    string
	status sourcev1.OCIRepositoryStatus // as last written
	// made says what the artifact in the store was made from; nil if there is
	// none.
	made     *made
	restored bool // the artifact of an earlier process was looked for
	looked   time.Time
	failures int // in a row
}

// made is what an artifact was made from.
type made struct {
	revision, fields, policy, signer string
	artifact                         *source.Artifact
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := &sourcev1.OCIRepository{}
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

func keyOf(name types.NamespacedName) source.Key {
	return source.Key{Kind: sourcev1.OCIRepositoryKind, Namespace: name.Namespace, Name: name.Name}
}

// job returns the job of an object. An earlier object of the same name is
// forgotten.
func (r *reconciler) job(name types.NamespacedName, o *sourcev1.OCIRepository) (*job, error) {
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
func dirName(o *sourcev1.OCIRepository) string {
	return o.Namespace + "-" + o.Name + "-" + string(o.UID)
}

// forget removes the artifact and the saved content of an object that is gone.
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
		return fmt.Errorf("remove the content of OCIRepository %s: %w", name, err)
	}
	return nil
}

// removeLeftovers deletes the content of objects that were deleted while no
// process of ours ran. It runs when the cache holds all objects.
func (r *reconciler) removeLeftovers(ctx context.Context) error {
	entries, err := os.ReadDir(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("list the content of OCIRepositories: %w", err)
	}
	var list sourcev1.OCIRepositoryList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	keep := r.inUse()
	for i := range list.Items {
		keep[dirName(&list.Items[i])] = true
	}
	for _, entry := range entries {
		if keep[entry.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.dir, entry.Name())); err != nil {
			r.log.Warn("remove the content of an OCIRepository that is gone", "dir", entry.Name(), "error", err)
		}
	}
	return nil
}

// inUse names the directories of objects that came meanwhile.
func (r *reconciler) inUse() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for _, j := range r.jobs {
		out[filepath.Base(j.dir)] = true
	}
	return out
}
