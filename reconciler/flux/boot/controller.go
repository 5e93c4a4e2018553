package boot

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	crsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// The field managers of the two statuses: Flux's names.
const (
	sourceOwner = "source-controller"
	syncOwner   = "kustomize-controller"
)

// settle is how long changes of the Root are collected before they are written.
const settle = 50 * time.Millisecond

// objectKey names both objects.
func objectKey() types.NamespacedName {
	return types.NamespacedName{Namespace: source.BootKey.Namespace, Name: source.BootKey.Name}
}

// Setup registers the controller. It calls written once both objects are there.
func Setup(mgr ctrl.Manager, e env.Env, root Root, written func()) error {
	r := &reconciler{client: mgr.GetClient(), env: e, root: root, written: written}
	named := predicate.NewPredicateFuncs(func(o client.Object) bool { return client.ObjectKeyFromObject(o) == objectKey() })
	both := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: objectKey()}}
	})
	if err := mgr.Add(manager.RunnableFunc(r.follow)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("boot").
		Watches(&sourcev1.GitRepository{}, both, builder.WithPredicates(named)).
		Watches(&kustomizev1.Kustomization{}, both, builder.WithPredicates(named)).
		WatchesRawSource(crsource.Func(r.attach)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
}

// reconciler keeps the two objects. It has one worker, which the fields without
// a mutex belong to.
type reconciler struct {
	client client.Client
	env    env.Env
	root   Root
	// written is called when both objects are there.
	written func()
	queue   atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]

	// The objects as last written: the cache may be behind.
	source *sourcev1.GitRepository
	sync   *kustomizev1.Kustomization
	// What was asked for on the objects.
	sourceRequest, syncRequest request
}

// request is the newest reconcile that was asked for by annotation, and the
// number that the Root gave it.
type request struct {
	at     string
	number uint64
}

func (r *reconciler) attach(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.queue.Store(&queue)
	r.env.Store.Subscribe(ctx, func(key source.Key) {
		if key == source.BootKey && ctx.Err() == nil {
			queue.AddAfter(reconcile.Request{NamespacedName: objectKey()}, settle)
		}
	})
	queue.Add(reconcile.Request{NamespacedName: objectKey()})
	return nil
}

// follow asks for a reconcile when the Root changed.
func (r *reconciler) follow(ctx context.Context) error {
	for {
		changed := r.root.Changed()
		if q := r.queue.Load(); q != nil {
			(*q).AddAfter(reconcile.Request{NamespacedName: objectKey()}, settle)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	if err := r.reconcileSource(ctx); err != nil {
		return ctrl.Result{}, fmt.Errorf("the GitRepository of the boot repository: %w", err)
	}
	if err := r.reconcileSync(ctx); err != nil {
		return ctrl.Result{}, fmt.Errorf("the Kustomization of the boot repository: %w", err)
	}
	r.written()
	return ctrl.Result{}, nil
}

// asked passes a reconcile asked for by annotation on to the Root, once.
func (r *reconciler) asked(o client.Object, handled string, last *request) {
	at, ok := meta.ReconcileAnnotationValue(o.GetAnnotations())
	if !ok || at == handled || at == last.at {
		return
	}
	*last = request{at: at, number: r.root.Trigger()}
}

// get reads an object, or makes it if there is none. One that is being deleted
// is let go.
func (r *reconciler) get(ctx context.Context, o client.Object, owner string, fill func()) (found bool, err error) {
	err = r.client.Get(ctx, objectKey(), o)
	switch {
	case apierrors.IsNotFound(err):
		o.SetNamespace(objectKey().Namespace)
		o.SetName(objectKey().Name)
		o.SetLabels(map[string]string{"app.kubernetes.io/part-of": "flux", "app.kubernetes.io/managed-by": "bothy"})
		fill()
		if err := r.client.Create(ctx, o, client.FieldOwner("bothy")); err != nil && !apierrors.IsAlreadyExists(err) {
			return false, fmt.Errorf("create: %w", err)
		}
		return false, nil // the watch brings it
	case err != nil:
		return false, err
	case o.GetDeletionTimestamp() != nil:
		// A finalizer of Flux's would keep it: nothing has to be done first.
		err := status.RemoveFinalizer(ctx, r.client, o, kustomizev1.KustomizationFinalizer, owner)
		return false, client.IgnoreNotFound(err)
	}
	return true, nil
}

func metaInterval(d time.Duration) metav1.Duration {
	if d <= 0 {
		d = time.Minute
	}
	return metav1.Duration{Duration: d}
}
