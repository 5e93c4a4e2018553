package flux

import (
	"context"
	"sync"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/metrics"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Metrics are the conventional ones of Flux (gotk_*) and of controller-runtime
// (controller_runtime_*, workqueue_*, rest_client_*).
func (c *Controllers) Metrics() prometheus.Gatherer {
	return prometheus.Gatherers{c.metrics.registry, crmetrics.Registry}
}

// metricSet has its own registry, since a process may have more than one set.
type metricSet struct {
	registry *prometheus.Registry
	recorder *metrics.Recorder
	objects  *resourceInfo
}

func newMetrics() *metricSet {
	m := &metricSet{registry: prometheus.NewRegistry(), recorder: metrics.NewRecorder(), objects: &resourceInfo{}}
	m.registry.MustRegister(m.objects)
	m.registry.MustRegister(m.recorder.Collectors()...)
	return m
}

// follow makes the objects of a manager's cache those that are reported.
func (m *metricSet) follow(cache client.Reader) {
	m.objects.mu.Lock()
	defer m.objects.mu.Unlock()
	m.objects.reader = cache
}

// resourceInfo reports the objects of the Flux API as Flux's own configuration
// of kube-state-metrics does. It looks when it is asked.
type resourceInfo struct {
	mu     sync.Mutex
	reader client.Reader
}

// gotk_resource_info is described at scrape time only: its labels are those of
// Flux's dashboards.
func infoDesc() *prometheus.Desc {
	return prometheus.NewDesc("gotk_resource_info", "The current state of an object of the Flux API, 1.",
		[]string{"customresource_kind", "exported_namespace", "name", "ready", "suspended", "revision"}, nil)
}

// Describe implements prometheus.Collector.
func (r *resourceInfo) Describe(ch chan<- *prometheus.Desc) { ch <- infoDesc() }

// scrapeTimeout bounds a look into the cache, which waits while it is not
// filled.
const scrapeTimeout = time.Second

// Collect implements prometheus.Collector.
func (r *resourceInfo) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	reader := r.reader
	r.mu.Unlock()
	if reader == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	desc := infoDesc()
	for _, kind := range reportedKinds() {
		if err := reader.List(ctx, kind.list, client.UnsafeDisableDeepCopy); err != nil {
			continue // not served yet
		}
		_ = meta.EachListItem(kind.list, func(o runtime.Object) error {
			suspended, revision := kind.facts(o)
			ready := "Unknown"
			if getter, ok := o.(conditions.Getter); ok {
				if c := conditions.Get(getter, "Ready"); c != nil {
					ready = string(c.Status)
				}
			}
			object := o.(client.Object)
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1,
				kind.name, object.GetNamespace(), object.GetName(), ready, boolLabel(suspended), revision)
			return nil
		})
	}
}

func boolLabel(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// reportedKind says how a kind tells what gotk_resource_info wants to know.
type reportedKind struct {
	name  string
	list  client.ObjectList
	facts func(runtime.Object) (suspended bool, revision string)
}

func reportedKinds() []reportedKind {
	return []reportedKind{
		{kustomizev1.KustomizationKind, &kustomizev1.KustomizationList{}, func(o runtime.Object) (bool, string) {
			k := o.(*kustomizev1.Kustomization)
			return k.Spec.Suspend, k.Status.LastAppliedRevision
		}},
		{helmv2.HelmReleaseKind, &helmv2.HelmReleaseList{}, func(o runtime.Object) (bool, string) {
			k := o.(*helmv2.HelmRelease)
			return k.Spec.Suspend, k.Status.LastAttemptedRevision
		}},
		{sourcev1.GitRepositoryKind, &sourcev1.GitRepositoryList{}, func(o runtime.Object) (bool, string) {
			k := o.(*sourcev1.GitRepository)
			return k.Spec.Suspend, revisionOf(k)
		}},
		{sourcev1.OCIRepositoryKind, &sourcev1.OCIRepositoryList{}, func(o runtime.Object) (bool, string) {
			k := o.(*sourcev1.OCIRepository)
			return k.Spec.Suspend, revisionOf(k)
		}},
		{sourcev1.HelmRepositoryKind, &sourcev1.HelmRepositoryList{}, func(o runtime.Object) (bool, string) {
			k := o.(*sourcev1.HelmRepository)
			return k.Spec.Suspend, revisionOf(k)
		}},
		{sourcev1.HelmChartKind, &sourcev1.HelmChartList{}, func(o runtime.Object) (bool, string) {
			k := o.(*sourcev1.HelmChart)
			return k.Spec.Suspend, revisionOf(k)
		}},
	}
}

func revisionOf(s sourcev1.Source) string {
	if a := s.GetArtifact(); a != nil {
		return a.Revision
	}
	return ""
}
