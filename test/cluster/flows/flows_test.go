package flows

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const patience = 90 * time.Second

// flow is a line of `bothy flows -o json`, as far as it matters here.
type flow struct {
	Verdict, What, Reason, Protocol string
	From, To                        peer
	Asked                           *peer
}

type peer struct {
	Addr, Namespace, Pod, Service, Node, Host string
	Port                                      int
}

func (f flow) String() string {
	return fmt.Sprintf("%s %s %s %+v -> %+v via %+v %s", f.Verdict, f.What, f.Protocol, f.From, f.To, f.Asked, f.Reason)
}

// watch is a running `bothy flows`.
type watch struct {
	cmd    *exec.Cmd
	flows  chan flow
	stderr bytes.Buffer
}

func startWatch(t *testing.T, n *cluster.Node, args ...string) *watch {
	t.Helper()
	w := &watch{cmd: n.Command(t.Context(), append([]string{"flows", "-o", "json"}, args...)...), flows: make(chan flow, 1000)}
	w.cmd.Stderr = &w.stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.flows)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var f flow
			if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
				t.Errorf("line %s: %v", lines.Bytes(), err)
				continue
			}
			w.flows <- f
		}
	}()
	return w
}

// expect repeats cause until a flow comes that is right: the watch may not have begun when it is
// caused for the first time.
func (w *watch) expect(t *testing.T, what string, cause func(), right func(flow) bool) {
	t.Helper()
	var last string
	cluster.Eventually(t, 30*time.Second, what, func() error {
		cause()
		for {
			select {
			case f, ok := <-w.flows:
				if !ok {
					return fmt.Errorf("bothy flows ended: %s", w.stderr.String())
				}
				if right(f) {
					return nil
				}
				last = f.String()
			case <-time.After(time.Second):
				return fmt.Errorf("not told; last was %s", last)
			}
		}
	})
}

// end presses Ctrl-C and returns what was said then.
func (w *watch) end(t *testing.T) string {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range w.flows { // what was still under way
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ended bothy flows with %v: %s", err, w.stderr.String())
	}
	return w.stderr.String()
}

func startPod(t *testing.T, k *cluster.Kubectl, name string, args ...string) {
	t.Helper()
	quoted, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	k.Apply(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "labels": {"app": %q}},
		"spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "toolbox", "image": "bothy.local/toolbox:1", "args": %s,
		"env": [{"name": "POD_NAME", "value": %q}]}]}}`, name, name, quoted, name))
	k.Run(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
}

// A connection to a Service and one that is refused are told with the names of both ends; what
// was not asked for is not told.
func TestFlowsNameBothEnds(t *testing.T) {
	t.Parallel()
	n, _ := shared.Node(t)
	k := shared.Kubectl(t)
	startPod(t, k, "server", "serve")
	startPod(t, k, "client", "sleep")
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": {"selector": {"app": "server"}, "ports": [{"name": "tcp", "port": 81, "targetPort": 8081}]}}`)
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"}, "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}}`)
	dial := func(addr string) func() {
		return func() {
			_, _ = k.Exec(t.Context(), "client", "/toolbox", "dial", "-send", "marco", "-timeout", "5s", "tcp", addr)
		}
	}

	w := startWatch(t, n, "--namespace", k.Namespace(), "--proto", "tcp", "--verdict", "forwarded,refused")
	w.expect(t, "the connection to the Service", dial("server:81"), func(f flow) bool {
		return f.Verdict == "forwarded" && f.From.Namespace == k.Namespace() && f.From.Pod == "client" && f.From.Node == n.Name &&
			f.To.Pod == "server" && f.To.Port == 8081 && f.Asked != nil && f.Asked.Service == k.Namespace()+"/server" && f.Asked.Port == 81
	})
	w.expect(t, "the refusal", dial("empty:80"), func(f flow) bool {
		return f.Verdict == "refused" && f.Reason == "refused-no-endpoint" && f.From.Pod == "client" && f.To.Service == k.Namespace()+"/empty"
	})
	if said := w.end(t); !strings.Contains(said, "flows seen, none lost") && !strings.Contains(said, "flow seen, none lost") {
		t.Errorf("at the end it said %q", said)
	}

	var entries []struct {
		From, To peer
		Asked    *peer
		State    string
	}
	cluster.Eventually(t, 30*time.Second, "the flow in the table", func() error {
		dial("server:81")()
		if err := json.Unmarshal([]byte(n.Run(t, "flows", "--table", "-o", "json", "--service", k.Namespace()+"/server")), &entries); err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return fmt.Errorf("the table is empty")
		}
		return nil
	})
	if e := entries[0]; e.From.Pod != "client" || e.To.Pod != "server" || e.State == "" {
		t.Errorf("entry %+v", e)
	}
}

// Nonsense is refused before anything is watched, and says what there is.
func TestFlowsRefusesNonsense(t *testing.T) {
	t.Parallel()
	n, _ := shared.Node(t)
	r := n.Try(t, "flows", "--reason", "bad-luck")
	if r.Code == 0 || !strings.Contains(r.Stderr, "spoofed-source") {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
}

// The node's network can be looked into without any other tool.
func TestNetworkCanBeLookedInto(t *testing.T) {
	t.Parallel()
	n, _ := shared.Node(t)
	k := shared.Kubectl(t)
	startPod(t, k, "server", "serve")
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": {"selector": {"app": "server"}, "ports": [{"port": 81, "targetPort": 8081}]}}`)

	var report struct {
		Backend  string
		MTU      int
		Pods     int
		Tables   []struct{ Table string }
		Problems []struct{ Subject, What string }
	}
	if err := json.Unmarshal([]byte(n.Run(t, "net", "status", "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Backend == "" || report.MTU == 0 || report.Pods == 0 || len(report.Tables) == 0 {
		t.Errorf("report %+v", report)
	}
	for _, p := range report.Problems {
		t.Errorf("a healthy node has the problem %s: %s", p.Subject, p.What)
	}
	if out := n.Run(t, "net", "status"); !strings.Contains(out, report.Backend) || !strings.Contains(out, "ATTACHED TO") {
		t.Errorf("as text: %s", out)
	}
	cluster.Eventually(t, 30*time.Second, "the Service in the tables", func() error {
		out := n.Run(t, "net", "services")
		for line := range strings.Lines(out) {
			if strings.Contains(line, k.Namespace()+"/server ") && strings.Contains(line, k.Namespace()+"/server:8081") {
				return nil
			}
		}
		return fmt.Errorf("not in\n%s", out)
	})
	if out := n.Run(t, "net", "endpoints"); !strings.Contains(out, k.Namespace()+"/server ") {
		t.Errorf("the pod is not in\n%s", out)
	}
}

// What is measured is there, for the monitoring system that the site runs.
func TestMetricsOfTheNetwork(t *testing.T) {
	t.Parallel()
	n, _ := shared.Node(t)
	k := shared.Kubectl(t)
	startPod(t, k, "client", "sleep")
	if out, err := k.Exec(t.Context(), "client", "/toolbox", "resolve", "kubernetes.default"); err != nil {
		t.Fatalf("resolve: %v: %s", err, out)
	}
	text := "\n" + n.Run(t, "net", "metrics")
	for _, series := range []string{
		`bothy_net_cni_duration_seconds_count{operation="ADD",result="ok"}`, `bothy_net_map_entries{map="endpoints"}`,
		`bothy_net_map_max_entries{map="ct"}`, `bothy_net_flows{state="established"}`, `bothy_net_service_programming_duration_seconds_count`,
		`bothy_net_policy_revision`, `coredns_dns_requests_total{`, `coredns_dns_request_duration_seconds_count{`,
	} {
		if !strings.Contains(text, "\n"+series) {
			t.Errorf("there is no %s", series)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
