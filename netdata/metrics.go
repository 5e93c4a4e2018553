package netdata

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bothy-os/bothy/netdata/maps"
)

// metrics is what a monitoring system may ask of the network. Histograms are kept
// as things happen; the rest is read from the tables when somebody asks. No label
// has values that a workload chooses, so their number is bounded.
type metrics struct {
	registry *prometheus.Registry
	cni      *prometheus.HistogramVec
	services prometheus.Histogram
	policies prometheus.Histogram
}

func newMetrics(n *Network) *metrics {
	programmingBuckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		cni: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "bothy_net_cni_duration_seconds",
			Help:    "Time to answer a request of the container runtime, by operation (ADD, DEL, CHECK, GC, STATUS) and result (ok, error).",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"operation", "result"}),
		services: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "bothy_net_service_programming_duration_seconds",
			Help:    "Time from hearing of a change of a Service or its endpoints until it is in force.",
			Buckets: programmingBuckets,
		}),
		policies: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "bothy_net_policy_programming_duration_seconds",
			Help:    "Time from hearing of a change of a NetworkPolicy until it is in force.",
			Buckets: programmingBuckets,
		}),
	}
	m.registry.MustRegister(m.cni, m.services, m.policies, &tableCollector{network: n})
	return m
}

// operations bounds the label: a request may name anything.
var operations = map[string]bool{"ADD": true, "DEL": true, "CHECK": true, "GC": true, "STATUS": true}

func (m *metrics) observeCNI(operation string, took time.Duration, failed bool) {
	if !operations[operation] {
		operation = "other"
	}
	result := "ok"
	if failed {
		result = "error"
	}
	m.cni.WithLabelValues(operation, result).Observe(took.Seconds())
}

func (m *metrics) observeService(took time.Duration) { m.services.Observe(took.Seconds()) }

func (m *metrics) observePolicy(took time.Duration) { m.policies.Observe(took.Seconds()) }

// Metrics are those of the network in the form of Prometheus. DNS is counted by CoreDNS, in the process's
// default registry.
func (n *Network) Metrics() prometheus.Gatherer { return n.metrics.registry }

var (
	droppedDesc = prometheus.NewDesc("bothy_net_dropped_packets_total",
		"Packets that went no further, by reason and place; `bothy net status` explains the reasons.", []string{"reason", "direction"}, nil)
	refusedDesc = prometheus.NewDesc("bothy_net_refused_total",
		"Packets and connection attempts that were answered with a no, by reason and place.", []string{"reason", "direction"}, nil)
	flowsDesc = prometheus.NewDesc("bothy_net_flows",
		"Flows that conntrack knew when it was last swept, by state (new, established, closing, closed).", []string{"state"}, nil)
	mapEntriesDesc = prometheus.NewDesc("bothy_net_map_entries",
		"Rows of a table of the dataplane.", []string{"map"}, nil)
	mapMaxEntriesDesc = prometheus.NewDesc("bothy_net_map_max_entries",
		"Capacity of a table of the dataplane, in rows.", []string{"map"}, nil)
	eventsLostDesc = prometheus.NewDesc("bothy_net_flow_events_lost_total",
		"Events that `bothy flows` missed because there were too many.", nil, nil)
	policyRevisionDesc = prometheus.NewDesc("bothy_net_policy_revision",
		"Revision of the policies in force; it rises with each change that concerns this node.", nil, nil)
	podsDesc = prometheus.NewDesc("bothy_net_pods",
		"Pods that are connected on this node.", nil, nil)
	servicesDesc = prometheus.NewDesc("bothy_net_services",
		"What the services tables hold, by kind (service, frontend, backend).", []string{"kind"}, nil)
	policyDesc = prometheus.NewDesc("bothy_net_policies",
		"What the policy tables hold, by kind (policy, peer, rule, isolated).", []string{"kind"}, nil)
	policyProblemsDesc = prometheus.NewDesc("bothy_net_policy_problems",
		"NetworkPolicies of which a part could not be read, and tables that are out of date.", nil, nil)
	serviceProblemsDesc = prometheus.NewDesc("bothy_net_service_problems",
		"Services that are not in force as they should be.", nil, nil)
)

// fillsAge is how long the fill of the tables is believed: counting walks over them.
const fillsAge = 10 * time.Second

// tableCollector reads the tables.
type tableCollector struct {
	network *Network

	mu      sync.Mutex
	counted time.Time
	fills   []maps.Fill
}

// Describe implements prometheus.Collector.
func (c *tableCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		droppedDesc, refusedDesc, flowsDesc, mapEntriesDesc, mapMaxEntriesDesc, eventsLostDesc, policyRevisionDesc, podsDesc, servicesDesc, serviceProblemsDesc,
		policyDesc, policyProblemsDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What cannot be read is left out.
func (c *tableCollector) Collect(ch chan<- prometheus.Metric) {
	k := c.network.kernel.Load()
	if k == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	if counts, err := k.Tables.DropCounts(); err == nil {
		collectDrops(ch, counts)
	}
	if lost, err := k.Tables.LostEvents(); err == nil {
		ch <- prometheus.MustNewConstMetric(eventsLostDesc, prometheus.CounterValue, float64(lost))
	}
	if state, err := k.Tables.State(); err == nil {
		gauge(policyRevisionDesc, int(state.PolicyRevision))
	}
	states := k.flows.Status().States
	for _, s := range maps.FlowStates() {
		gauge(flowsDesc, states[s], string(s))
	}
	for _, f := range c.fill(k.Tables) {
		if f.Entries >= 0 {
			gauge(mapEntriesDesc, f.Entries, f.Table)
			gauge(mapMaxEntriesDesc, f.Max, f.Table)
		}
	}
	s := c.network.Status()
	gauge(podsDesc, s.Pods)
	gauge(servicesDesc, s.Services.Services, "service")
	gauge(servicesDesc, s.Services.Frontends, "frontend")
	gauge(servicesDesc, s.Services.Backends, "backend")
	gauge(serviceProblemsDesc, len(s.Services.Problems))
	gauge(policyDesc, s.Policy.Policies, "policy")
	gauge(policyDesc, s.Policy.Peers, "peer")
	gauge(policyDesc, s.Policy.Rules, "rule")
	gauge(policyDesc, s.Policy.Isolated, "isolated")
	gauge(policyProblemsDesc, len(s.Policy.Problems))
}

func collectDrops(ch chan<- prometheus.Metric, counts []maps.DropCount) {
	for _, n := range counts {
		desc := droppedDesc
		if n.Reason.Refusal() {
			desc = refusedDesc
		}
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n.Count), n.Reason.String(), n.Hook.String())
	}
}

func (c *tableCollector) fill(t *maps.Tables) []maps.Fill {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.counted) < fillsAge {
		return c.fills
	}
	if fills, err := t.Fills(); err == nil {
		c.fills, c.counted = fills, time.Now()
	}
	return c.fills
}
