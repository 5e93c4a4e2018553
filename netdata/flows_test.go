package netdata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/netdata/flows"
)

// TestFlows is what an operator sees who looks into the network while pods talk.
func TestFlows(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	plugin := buildPlugin(t, n.dir)
	api := newFakeAPI(t)
	n.api, n.cfg.PodCIDRs = api, testPodCIDRs
	api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	api.kubeconfig(n.dir)
	n.start("cni", "policy", "services", "dns")
	a, b := n.pod(plugin, "a"), n.pod(plugin, "b")
	echoTCP(t, b.ns, ":8080", "b")
	echoUDP(t, b.ns, ":8080", "b")
	echoTCP(t, n.outside, ":9000", "outside")
	api.put(service("web", "10.96.0.20", 30080, 80, 8080))
	api.put(slice("web", 8080, b))
	api.put(service("empty", "10.96.0.22", 0, 80, 8080))
	wait(t, "the services to be in force", func() error {
		if s := n.network.Status().Services; s.Services != 2 || s.Backends < 2 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})

	w := watchFlows(t, n.network, flows.Filter{})
	podA, podB := "default/container-a", "default/container-b"
	expect(t, a.ns, "tcp4", b.at(8080), "b", a.addr.String())
	w.expect(t, "forwarded "+podA+" -> "+podB+":8080")
	expect(t, a.ns, "tcp6", b.at6(8080), "b", a.addr6.String())
	w.expect(t, "forwarded "+podA+" -> "+podB+":8080")
	expect(t, a.ns, "udp4", "10.96.0.20:80", "b", a.addr.String())
	w.expect(t, "forwarded "+podA+" -> "+podB+":8080 via service default/web:80")
	expect(t, n.outside, "tcp4", "192.168.50.1:30080", "b", outsideIP.String())
	w.expect(t, "forwarded "+outsideIP.String()+" -> "+podB+":8080 via service default/web:30080")
	expect(t, a.ns, "tcp4", "192.168.50.2:9000", "outside", nodeIP.String())
	w.expect(t, "forwarded "+podA+" -> "+outsideIP.String()+":9000")
	expectRefused(t, a.ns, "tcp4", "10.96.0.22:80")
	w.expect(t, "refused "+podA+" -> service default/empty:80 refused-no-endpoint from-pod")
	if n.cfg.HostCgroup != "" {
		expectRefused(t, "", "tcp4", "10.96.0.22:80")
		w.expect(t, "refused node node -> service default/empty:80 refused-no-endpoint socket")
		expect(t, "", "tcp4", "10.96.0.20:80", "b", nodeIP.String())
		w.expect(t, "forwarded node node -> "+podB+":8080 via service default/web:80")
	}
	nobody := policyOf("nobody-to-b", "b", nil)
	n.enforce(nobody)
	c, err := dial(t, a.ns, "udp4", "10.96.0.20:80")
	must(t, err)
	_, err = c.Write([]byte("hello"))
	must(t, errors.Join(err, c.Close()))
	w.expect(t, "dropped "+podA+" -> "+podB+":8080 via service default/web:80 policy-ingress from-pod")
	n.withdraw(nobody)
	n.spoof(a, b)
	w.expect(t, "dropped 10.244.7.200 -> "+podB+":8080 spoofed-source from-pod")
	if got := w.end(t); got != (flows.Lost{}) {
		t.Errorf("lost %+v, want nothing", got)
	}

	t.Run("the table", func(t *testing.T) {
		c, err := dial(t, a.ns, "tcp4", "10.96.0.20:80")
		must(t, err)
		defer c.Close()
		sayTo(t, c, "b")
		entries, err := n.network.FlowTable(flows.Filter{Services: []string{"web"}, From: []string{podA}, Protocols: []string{"TCP"}})
		must(t, err)
		if len(entries) == 0 || entries[0].To.Pod != "container-b" || entries[0].State == "" {
			t.Errorf("entries %+v", entries)
		}
	})
	t.Run("the tables of the dataplane", func(t *testing.T) {
		services, err := n.network.ServiceTable()
		must(t, err)
		var web int
		for _, s := range services {
			if s.Service == "default/web" {
				web++
				if len(s.Backends) != 1 || s.Backends[0].Pod != "container-b" {
					t.Errorf("behind %s: %+v", s.Address, s.Backends)
				}
			}
		}
		if web != 4 {
			t.Errorf("%d addresses of default/web in %+v, want 4", web, services)
		}
		endpoints, err := n.network.EndpointTable()
		must(t, err)
		if len(endpoints) != 4 || endpoints[0].Pod != "container-a" || endpoints[0].Interface != a.dev {
			t.Errorf("endpoints %+v", endpoints)
		}
	})
	t.Run("the report", func(t *testing.T) {
		r, err := n.network.Report()
		must(t, err)
		var spoofed bool
		for _, d := range r.DropDetails {
			spoofed = spoofed || d.Reason == "spoofed-source" && d.Direction == "from-pod" && d.Count == 1 && d.What != "" && d.Do != ""
		}
		if !spoofed || r.MTU == 0 || len(r.Tables) == 0 || !r.ServicesComplete {
			t.Errorf("report %+v", r)
		}
		for _, p := range r.Problems {
			if p.Subject != "dns" && p.Subject != "host-services" { // the test node has no upstreams
				t.Errorf("problem %+v", p)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		families, err := n.network.Metrics().Gather()
		must(t, err)
		for series, want := range map[string]float64{
			`bothy_net_dropped_packets_total{direction="from-pod",reason="spoofed-source"}`: 1,
			`bothy_net_refused_total{direction="from-pod",reason="refused-no-endpoint"}`:    1,
			`bothy_net_cni_duration_seconds{operation="ADD",result="ok"}`:                   2,
			`bothy_net_pods`: 2, `bothy_net_services{kind="service"}`: 2, `bothy_net_map_entries{map="endpoints"}`: 2,
			`bothy_net_flow_events_lost_total`: 0, `bothy_net_service_problems`: 0,
		} {
			if got, ok := value(families, series); !ok || got != want {
				t.Errorf("%s is %v (there: %v), want %v", series, got, ok, want)
			}
		}
		if got, _ := value(families, "bothy_net_service_programming_duration_seconds"); got < 2 {
			t.Errorf("%v programmed Services were timed, want 2 or more", got)
		}
	})
	t.Run("who watches when the dataplane stops is told", func(t *testing.T) {
		w := watchFlows(t, n.network, flows.Filter{})
		n.stop()
		if err := <-w.ended; !errors.Is(err, flows.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	})
}

// watcher gathers what one who watches is told.
type watcher struct {
	stop  context.CancelFunc
	lines chan string
	ended chan error
	lost  flows.Lost
}

func watchFlows(t *testing.T, n *Network, filter flows.Filter) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{stop: cancel, lines: make(chan string, 1000), ended: make(chan error, 1)}
	there := make(chan struct{}, 1)
	go func() {
		w.ended <- n.WatchFlows(ctx, filter, func(batch []flows.Flow, lost flows.Lost) error {
			if len(batch) == 0 {
				select {
				case there <- struct{}{}:
				default:
				}
			}
			for i := range batch {
				w.lines <- line(&batch[i])
			}
			w.lost = lost
			return nil
		})
	}()
	select {
	case <-there:
	case err := <-w.ended:
		t.Fatalf("watch: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("watching does not begin")
	}
	return w
}

// line leaves out what differs from run to run: the port of the one who asks.
func line(f *flows.Flow) string {
	from := f.From
	from.Port = 0
	text := fmt.Sprintf("%s %s -> %s", f.Verdict, from, f.To)
	if f.Asked != nil && f.Asked.Addr != f.To.Addr {
		text += fmt.Sprintf(" via %s", f.Asked)
	}
	if f.Reason != "" {
		text += " " + f.Reason + " " + f.Hook
	}
	return text
}

// expect waits for a line; others may come in between.
func (w *watcher) expect(t *testing.T, want string) {
	t.Helper()
	var others []string
	deadline := time.After(10 * time.Second)
	for {
		select {
		case got := <-w.lines:
			if got == want {
				return
			}
			others = append(others, got)
		case <-deadline:
			t.Fatalf("not told: %s\ninstead:\n%s", want, strings.Join(others, "\n"))
		}
	}
}

func (w *watcher) end(t *testing.T) flows.Lost {
	t.Helper()
	w.stop()
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	return w.lost
}

// value is that of a series written as Prometheus does; of a histogram, the number of observations.
func value(families []*dto.MetricFamily, series string) (float64, bool) {
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			if name != series {
				continue
			}
			if m.Histogram != nil {
				return float64(m.Histogram.GetSampleCount()), true
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
		}
	}
	return 0, false
}
