package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/predicates"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/prometheus/client_golang/prometheus"
	"helm.sh/helm/v4/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	crsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// active bounds how many releases are worked on at the same time. Those that
// wait for pods and hooks do not count.
const active = 4

// The indexes by which releases are found.
const (
	sourceIndex     = ".metadata.chartSource"
	dependencyIndex = ".metadata.dependsOn"
	valuesIndex     = ".metadata.valuesFrom"
)

// The pauses between attempts after failures.
const (
	retryMin = 750 * time.Millisecond
	retryMax = 15 * time.Minute
)

// Setup registers the controller of HelmRelease.
func Setup(mgr ctrl.Manager, e env.Env) error {
	// Helm asks a variable of its own under which name it applies objects, and
	// would otherwise take the name of the program.
	kube.ManagedFieldsManager = fieldManager
	r, err := newController(mgr, e)
	if err != nil {
		return fmt.Errorf("controller of HelmRelease: %w", err)
	}
	if err := r.index(mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("controller of HelmRelease: %w", err)
	}
	if err := mgr.Add(r.watches); err != nil {
		return fmt.Errorf("controller of HelmRelease: %w", err)
	}
	err = builder.ControllerManagedBy(mgr).Named("helmrelease").
		For(&v2.HelmRelease{}, builder.WithPredicates(predicate.Or[client.Object](
			predicate.GenerationChangedPredicate{}, predicates.ReconcileRequestedPredicate{}, deletionStarted()))).
		Watches(&v2.HelmRelease{}, r.enqueue(dependencyIndex, nameOnly), builder.WithPredicates(readinessChanged())).
		Watches(&sourcev1.HelmChart{}, r.enqueue(sourceIndex, keyed(sourcev1.HelmChartKind)), builder.WithPredicates(readinessChanged())).
		Watches(&sourcev1.OCIRepository{}, r.enqueue(sourceIndex, keyed(sourcev1.OCIRepositoryKind)), builder.WithPredicates(readinessChanged())).
		WatchesMetadata(&corev1.Secret{}, r.enqueue(valuesIndex, keyed("Secret")), builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesMetadata(&corev1.ConfigMap{}, r.enqueue(valuesIndex, keyed("ConfigMap")), builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(r.jobs).
		WatchesRawSource(crsource.Func(r.followArtifacts)).
		WithOptions(ctrlcontroller.Options{
			MaxConcurrentReconciles: env.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryMin, retryMax),
		}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("controller of HelmRelease: %w", err)
	}
	return nil
}

func newController(mgr ctrl.Manager, e env.Env) (*controller, error) {
	config := mgr.GetConfig()
	meta, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	discover, err := discovery.NewDiscoveryClientForConfigAndClient(config, mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	counter, err := driftCounter()
	if err != nil {
		return nil, err
	}
	r := &controller{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), env: e, jobs: jobs.New(active), memories: map[types.NamespacedName]*memory{},
		clusters: &clusters{
			client: mgr.GetClient(), config: e.RESTConfig, mapper: mgr.GetRESTMapper(),
			shared: newCapabilities(discover), account: e.DefaultServiceAccount,
		},
		count: func(name types.NamespacedName, action string) {
			counter.WithLabelValues(name.Namespace, name.Name, action).Inc()
		},
	}
	r.watches = newWatches(meta, e.Log, r.changed)
	return r, nil
}

// driftCounter counts what was corrected. A component that is started again goes
// on with the same counter.
func driftCounter() (*prometheus.CounterVec, error) {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bothy_helm_drift_corrected_total",
		Help: "Objects of Helm releases that somebody else changed or removed and that were put right, by what was done.",
	}, []string{"exported_namespace", "name", "action"})
	err := metrics.Registry.Register(counter)
	var registered prometheus.AlreadyRegisteredError
	if errors.As(err, &registered) {
		if existing, ok := registered.ExistingCollector.(*prometheus.CounterVec); ok {
			return existing, nil
		}
	}
	return counter, err
}

// index lets releases be found by what they depend on.
func (r *controller) index(indexer client.FieldIndexer) error {
	indexes := map[string]func(*v2.HelmRelease) []string{
		sourceIndex: func(o *v2.HelmRelease) []string {
			if o.HasChartRef() == o.HasChartTemplate() {
				return nil
			}
			return []string{reference(o).String()}
		},
		dependencyIndex: func(o *v2.HelmRelease) []string {
			var names []string
			for _, d := range o.Spec.DependsOn {
				names = append(names, dependencyName(o, d).String())
			}
			return names
		},
		valuesIndex: func(o *v2.HelmRelease) []string {
			var names []string
			for _, v := range o.Spec.ValuesFrom {
				names = append(names, v.Kind+"/"+o.Namespace+"/"+v.Name)
			}
			return names
		},
	}
	for name, values := range indexes {
		err := indexer.IndexField(context.Background(), &v2.HelmRelease{}, name, func(o client.Object) []string {
			return values(o.(*v2.HelmRelease)) //nolint:forcetypeassert // the index is of this kind
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func nameOnly(o client.Object) string { return client.ObjectKeyFromObject(o).String() }

func keyed(kind string) func(client.Object) string {
	return func(o client.Object) string { return kind + "/" + nameOnly(o) }
}

// enqueue has the releases looked at that an index finds for an object.
func (r *controller) enqueue(index string, key func(client.Object) string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return r.find(ctx, index, key(o))
	})
}

func (r *controller) find(ctx context.Context, index, key string) []reconcile.Request {
	list := new(v2.HelmReleaseList)
	if err := r.client.List(ctx, list, client.MatchingFields{index: key}); err != nil {
		r.env.Log.Debug("cannot list releases", "index", index, "key", key, "error", err)
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

// followArtifacts has releases looked at whose source delivers something new, as long as the controller runs.
func (r *controller) followArtifacts(ctx context.Context, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.env.Store.Subscribe(ctx, func(k source.Key) { r.sourceChanged(ctx, k) })
	return nil
}

// sourceChanged has the releases of a source looked at.
func (r *controller) sourceChanged(ctx context.Context, k source.Key) {
	if !slices.Contains([]string{sourcev1.HelmChartKind, sourcev1.OCIRepositoryKind}, k.Kind) {
		return
	}
	// The list comes from the cache; it waits for nothing once that is filled.
	go func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for _, request := range r.find(ctx, sourceIndex, k.String()) {
			r.jobs.Enqueue(request)
		}
	}()
}

// deletionStarted lets through that an object is being deleted.
func deletionStarted() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetDeletionTimestamp().IsZero() && !e.ObjectNew.GetDeletionTimestamp().IsZero()
		},
	}
}

// readinessChanged lets through what may make a difference to those who wait for
// an object.
func readinessChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return true },
		DeleteFunc:  func(event.DeleteEvent) bool { return true },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, okBefore := e.ObjectOld.(conditions.Getter)
			now, ok := e.ObjectNew.(conditions.Getter)
			return ok && okBefore && readiness(before) != readiness(now)
		},
	}
}

// readiness sums up what others look at.
func readiness(o conditions.Getter) string {
	text := fmt.Sprint(o.GetGeneration(), conditions.IsStalled(o))
	if c := conditions.Get(o, meta.ReadyCondition); c != nil {
		text += string(c.Status) + c.Reason + fmt.Sprint(c.ObservedGeneration)
	}
	if s, ok := o.(interface{ GetArtifact() *meta.Artifact }); ok && s.GetArtifact() != nil {
		text += s.GetArtifact().Revision + s.GetArtifact().Digest
	}
	if h, ok := o.(*v2.HelmRelease); ok {
		text += fmt.Sprint(h.Status.ObservedGeneration, digestOf(h.Status.History))
	}
	return text
}
