package sources

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fluxcd/pkg/runtime/predicates"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	crsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
)

// owner is the field manager of what is written about sources, as in Flux.
const owner = "source-controller"

// active bounds how many indexes and charts are worked on at the same time.
const active = 4

// sourceIndex finds the HelmCharts of a source.
const sourceIndex = ".metadata.helmChartSource"

// Setup registers the controllers of HelmRepository and HelmChart.
func Setup(mgr ctrl.Manager, e env.Env) error {
	files := disk{filepath.Join(e.StateDir, "sources", "helm")}
	if err := files.sweep(); err != nil {
		e.Log.Warn("cannot remove unfinished files of charts", "error", err)
	}
	access := accessor{client: mgr.GetClient(), userAgent: "bothy/" + e.Version}
	if err := setupRepositories(mgr, e, files, access); err != nil {
		return fmt.Errorf("controller of HelmRepository: %w", err)
	}
	if err := setupCharts(mgr, e, files, access); err != nil {
		return fmt.Errorf("controller of HelmChart: %w", err)
	}
	return nil
}

func setupRepositories(mgr ctrl.Manager, e env.Env, files disk, access accessor) error {
	r := &repositories{
		client: mgr.GetClient(), store: e.Store, events: e.Events, files: files, access: access,
		log: e.Log, jobs: jobs.New(active), fetched: map[types.NamespacedName]time.Time{},
	}
	return builder.ControllerManagedBy(mgr).Named("helmrepository").
		For(&sourcev1.HelmRepository{}, builder.WithPredicates(changedOrRequested())).
		WatchesRawSource(r.jobs).
		WithOptions(options()).
		Complete(r)
}

func setupCharts(mgr ctrl.Manager, e env.Env, files disk, access accessor) error {
	r := &chartController{
		client: mgr.GetClient(), store: e.Store, events: e.Events, files: files, access: access,
		log: e.Log, jobs: jobs.New(active), seen: map[types.NamespacedName]memory{},
	}
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &sourcev1.HelmChart{}, sourceIndex,
		func(o client.Object) []string {
			c := o.(*sourcev1.HelmChart) //nolint:forcetypeassert // the index is of this kind
			return []string{sourceOf(c).String()}
		})
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("helmchart").
		For(&sourcev1.HelmChart{}, builder.WithPredicates(changedOrRequested())).
		Watches(&sourcev1.HelmRepository{}, handler.EnqueueRequestsFromMapFunc(r.ofRepository),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(r.jobs).
		WatchesRawSource(crsource.Func(r.followArtifacts)).
		WithOptions(options()).
		Complete(r)
}

// changedOrRequested lets through what asks for a reconcile: our own writes of
// the status do not.
func changedOrRequested() predicate.Predicate {
	return predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicates.ReconcileRequestedPredicate{})
}

// The pauses between attempts after failures.
const (
	retryMin = 500 * time.Millisecond
	retryMax = 5 * time.Minute
)

func options() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: env.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryMin, retryMax),
	}
}
