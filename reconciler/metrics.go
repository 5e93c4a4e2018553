package reconciler

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// metrics is what a monitoring system may ask of the way from Git to the
// cluster. Counters and histograms are kept as things happen; gauges are read
// from the status when somebody asks.
type metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	applied  prometheus.Histogram
	ready    prometheus.Histogram
	drift    *prometheus.CounterVec

	mu sync.Mutex
	// flux are the metrics of the controllers that serve the Flux API.
	flux prometheus.Gatherer
}

// wayBuckets are seconds from the acceptance of a commit.
var wayBuckets = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func newMetrics(status func() Status) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bothy_git_events_total", Help: "What happened on the way from the repository to the cluster, by the reason that `bothy events` shows.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bothy_commits_refused_total", Help: "Commits that were refused, by the acceptance rule they broke.",
		}, []string{"rule"}),
		applied: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bothy_commit_applied_seconds", Help: "Time from the acceptance of a commit until all its objects were sent.", Buckets: wayBuckets,
		}),
		ready: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bothy_commit_ready_seconds", Help: "Time from the acceptance of a commit until all its objects were healthy.", Buckets: wayBuckets,
		}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bothy_drift_total", Help: "Objects of the site's directory that somebody else changed or deleted and that were set back.",
		}, []string{"action"}),
	}
	m.registry.MustRegister(m.events, m.refused, m.applied, m.ready, m.drift, &statusCollector{status: status})
	return m
}

var (
	commitInfo      = prometheus.NewDesc("bothy_commit_info", "The commit that the site runs, 1.", []string{"commit", "signer"}, nil)
	commitTime      = prometheus.NewDesc("bothy_commit_accepted_timestamp_seconds", "When the commit that the site runs was accepted.", nil, nil)
	objectsNow      = prometheus.NewDesc("bothy_objects", "Objects of the site's directory, by state.", []string{"state"}, nil)
	sourceReachable = prometheus.NewDesc("bothy_source_reachable", "1 if the repository could be read the last time.", nil, nil)
	lastFetch       = prometheus.NewDesc("bothy_last_fetch_timestamp_seconds", "When the repository was last read.", nil, nil)
	commitRefused   = prometheus.NewDesc("bothy_commit_refused", "1 while the newest commit of the repository is refused.", nil, nil)
	siteReady       = prometheus.NewDesc("bothy_site_ready", "1 while everything of the accepted commit is applied and healthy.", nil, nil)
)

// statusCollector turns the status into gauges.
type statusCollector struct{ status func() Status }

func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{commitInfo, commitTime, objectsNow, sourceReachable, lastFetch, commitRefused, siteReady} {
		ch <- d
	}
}

func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if a := s.Accepted; a != nil {
		gauge(commitInfo, 1, a.Commit, a.Signer)
		gauge(commitTime, seconds(a.At))
	}
	gauge(objectsNow, float64(s.Objects.Ready), "ready")
	gauge(objectsNow, float64(s.Objects.FailedCount), "failed")
	gauge(objectsNow, float64(s.Objects.PendingCount), "pending")
	gauge(sourceReachable, boolean(s.Source.UnreachableSince == nil))
	if s.Source.LastFetch != nil {
		gauge(lastFetch, seconds(*s.Source.LastFetch))
	}
	gauge(commitRefused, boolean(s.Rejected != nil))
	gauge(siteReady, boolean(s.Phase == PhaseReady || s.Phase == PhaseFollowing))
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// follow adds the metrics of the controllers of the Flux API.
func (m *metrics) follow(g prometheus.Gatherer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flux = g
}

// Metrics are those of the way from Git to the cluster and of the Flux API, in
// the form of Prometheus.
func (r *Reconciler) Metrics() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		r.metrics.mu.Lock()
		all := prometheus.Gatherers{r.metrics.registry}
		if r.metrics.flux != nil {
			all = append(all, r.metrics.flux)
		}
		r.metrics.mu.Unlock()
		return all.Gather()
	})
}
