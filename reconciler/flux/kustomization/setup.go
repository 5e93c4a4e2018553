package kustomization

import (
	"context"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/predicates"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	crsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// owner is the field manager of status and finalizers: Flux's name.
const owner = "kustomize-controller"

// workers is how many objects are worked on at a time. Nearly all of the time of
// a reconcile is that of etcd's writes, which it makes together for whoever
// waits, so that many at a time cost little more than few.
const workers = 3 * env.Workers

// The indexes of the cache. Each value is "<namespace>/<name>", that of sources
// a source.Key.
const (
	indexSource     = "bothy.source"
	indexDependency = "bothy.dependency"
	indexConfigMap  = "bothy.configMap"
	indexSecret     = "bothy.secret"
)

// Setup registers the controller with the manager.
func Setup(mgr ctrl.Manager, e env.Env) error {
	r := newReconciler(mgr.GetClient(), e)
	for name, keys := range map[string]func(*kustomizev1.Kustomization) []string{
		indexSource:     func(k *kustomizev1.Kustomization) []string { return []string{sourceKey(k).String()} },
		indexDependency: dependencyKeys,
		indexConfigMap:  func(k *kustomizev1.Kustomization) []string { return referenceKeys(k, "ConfigMap") },
		indexSecret:     func(k *kustomizev1.Kustomization) []string { return referenceKeys(k, "Secret") },
	} {
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), &kustomizev1.Kustomization{}, name, func(o client.Object) []string {
			return keys(o.(*kustomizev1.Kustomization))
		}); err != nil {
			return err
		}
	}
	if err := mgr.Add(manager.RunnableFunc(r.dispatch)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("kustomization").
		For(&kustomizev1.Kustomization{}, builder.WithPredicates(asksForWork())).
		Watches(&kustomizev1.Kustomization{}, handler.EnqueueRequestsFromMapFunc(r.dependents), builder.WithPredicates(readinessChanged())).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.readersOf(indexConfigMap))).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.readersOf(indexSecret))).
		WatchesRawSource(crsource.Func(r.attach)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			UsePriorityQueue:        new(true),
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryMin, retryMax),
		}).
		Complete(r)
}

// attach keeps the queue, for what does not come from a watch.
func (r *reconciler) attach(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	if q, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		r.queue.Store(&q)
	}
	return nil
}

// enqueue asks for a reconcile. It never blocks.
func (r *reconciler) enqueue(priority int, names ...types.NamespacedName) {
	q := r.queue.Load()
	if q == nil {
		return // not started: the first list brings all objects
	}
	requests := make([]reconcile.Request, len(names))
	for i, name := range names {
		requests[i].NamespacedName = name
	}
	(*q).AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, requests...)
}

// asksForWork passes what only somebody else can have written.
func asksForWork() predicate.Predicate {
	return predicate.Or(
		predicate.GenerationChangedPredicate{},
		predicates.ReconcileRequestedPredicate{},
		predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetAnnotations()[AllowPruneAnnotation] != e.ObjectNew.GetAnnotations()[AllowPruneAnnotation] ||
				e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
		}},
	)
}

// readinessChanged passes what dependents wait for.
func readinessChanged() predicate.Predicate {
	return predicate.Funcs{
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion()
		},
	}
}

func sourceKey(k *kustomizev1.Kustomization) source.Key {
	key := source.Key{Kind: k.Spec.SourceRef.Kind, Namespace: k.Spec.SourceRef.Namespace, Name: k.Spec.SourceRef.Name}
	if key.Namespace == "" {
		key.Namespace = k.Namespace
	}
	return key
}

// referenceKeys lists the ConfigMaps or Secrets that a build reads.
func referenceKeys(k *kustomizev1.Kustomization, kind string) []string {
	var names []string
	if p := k.Spec.PostBuild; p != nil {
		for _, ref := range p.SubstituteFrom {
			if ref.Kind == kind {
				names = append(names, ref.Name)
			}
		}
	}
	if kind == "Secret" {
		if d := k.Spec.Decryption; d != nil && d.SecretRef != nil {
			names = append(names, d.SecretRef.Name)
		}
		if c := k.Spec.KubeConfig; c != nil && c.SecretRef != nil {
			names = append(names, c.SecretRef.Name)
		}
	}
	for i, name := range names {
		names[i] = k.Namespace + "/" + name
	}
	return names
}

// readersOf finds the objects that read a ConfigMap or Secret which is labelled
// to be watched.
func (r *reconciler) readersOf(index string) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		if o.GetLabels()[meta.LabelKeyWatch] != meta.LabelValueWatchEnabled {
			return nil
		}
		names := r.named(ctx, index, client.ObjectKeyFromObject(o).String())
		for _, name := range names {
			if j := r.jobs.find(name); j != nil {
				j.inputsStale.Store(true)
			}
		}
		return requests(names)
	}
}

// named lists the objects under a value of an index.
func (r *reconciler) named(ctx context.Context, index, value string) []types.NamespacedName {
	var list kustomizev1.KustomizationList
	if err := r.client.List(ctx, &list, client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("list Kustomizations", "index", index, "error", err)
		return nil
	}
	names := make([]types.NamespacedName, len(list.Items))
	for i := range list.Items {
		names[i] = client.ObjectKeyFromObject(&list.Items[i])
	}
	return names
}

func requests(names []types.NamespacedName) []reconcile.Request {
	out := make([]reconcile.Request, len(names))
	for i, name := range names {
		out[i].NamespacedName = name
	}
	return out
}

// isBoot reports whether an object is the site's own, which is reconciled with
// the boot repository.
func isBoot(name types.NamespacedName) bool {
	return name.Namespace == source.BootKey.Namespace && name.Name == source.BootKey.Name
}
