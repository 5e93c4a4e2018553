package flux

import (
	"context"
	"log/slog"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bothy-os/bothy/reconciler/flux/env"
)

// stopTimeout is how long controllers may take to end. What they leave
// unfinished is done again by the next process.
const stopTimeout = 5 * time.Second

// NewScheme returns a scheme with the kinds of Kubernetes and of the Flux API.
func NewScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, sourcev1.AddToScheme, kustomizev1.AddToScheme, helmv2.AddToScheme,
		notificationv1.AddToScheme, notificationv1beta3.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newManager returns a manager without controllers. It serves nothing and takes
// part in no election: there is one agent, in whose process it runs.
func newManager(restConfig *rest.Config, log *slog.Logger) (ctrl.Manager, error) {
	s, err := NewScheme()
	if err != nil {
		return nil, err
	}
	caches, err := cacheOptions()
	if err != nil {
		return nil, err
	}
	logger := logr.FromSlogHandler(quiet{log.Handler()})
	// The library keeps one logger besides for what has none of its own.
	ctrl.SetLogger(logger)
	timeout := stopTimeout
	return ctrl.NewManager(rest.CopyConfig(restConfig), ctrl.Options{
		Scheme:                        s,
		Logger:                        logger,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:        "0",
		PprofBindAddress:              "0",
		LeaderElection:                false,
		LeaderElectionReleaseOnCancel: false,
		GracefulShutdownTimeout:       &timeout,
		Cache:                         caches,
		Client: client.Options{Cache: &client.CacheOptions{
			// Read where they are used and when they are used: holding all Secrets
			// of a cluster is neither small nor wanted.
			DisableFor: []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}, &corev1.ServiceAccount{}, &corev1.Namespace{}},
		}},
		Controller: config.Controller{
			// A component that is started again registers the same names.
			SkipNameValidation:      new(true),
			MaxConcurrentReconciles: env.Workers,
			CacheSyncTimeout:        10 * time.Minute,
		},
	})
}

// cacheOptions keep objects of the Flux API only, without what nobody here
// reads, and without those that belong to another controller.
func cacheOptions() (cache.Options, error) {
	notSharded, err := labels.NewRequirement(env.ShardLabel, selection.DoesNotExist, nil)
	if err != nil {
		return cache.Options{}, err
	}
	watched := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{meta.LabelKeyWatch: meta.LabelValueWatchEnabled})}
	return cache.Options{
		DefaultLabelSelector: labels.NewSelector().Add(*notSharded),
		DefaultTransform:     cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			// Watched as metadata only, to notice changes of those that say so.
			&corev1.Secret{}:    watched,
			&corev1.ConfigMap{}: watched,
		},
	}, nil
}

// quiet tells as debugging what controller-runtime tells as information: that it
// starts and stops its parts.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lower(level))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

func lower(level slog.Level) slog.Level {
	if level < slog.LevelWarn {
		return level - slog.LevelInfo + slog.LevelDebug
	}
	return level
}
