package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	streamPort = 30083
	// enough messages and writes before the first kill, for the outcome to
	// prove something.
	enough = 100
)

const loadManifest = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: toolbox
      image: bothy.local/toolbox:1
      args: [serve]
      readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: NodePort
  selector: {app: server}
  ports: [{name: stream, port: 83, targetPort: 8083, nodePort: 30083}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 5
  restartPolicy: OnFailure # until the Service has its endpoint
  containers:
    - name: toolbox
      image: bothy.local/toolbox:1
      args: [stream, -interval, 50ms, "server:83"]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ledger}
`

// load is what goes on while processes are killed: a connection from this
// machine through a NodePort, one from a pod through a ClusterIP, and a writer
// that keeps account of what was acknowledged.
type load struct {
	node   *cluster.Node
	kube   *cluster.Kubectl
	stream *hostStream
	ledger *ledger
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func startLoad(t *testing.T, node *cluster.Node, nodeIP string) *load {
	t.Helper()
	k := node.Kubectl(t)
	k.Apply(t, loadManifest)
	k.Run(t, "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout", patience.String())
	cluster.Eventually(t, patience, "the client pod to be connected", func() error {
		out, err := k.Output(t.Context(), "logs", "client")
		if err == nil && !strings.Contains(out, "connected to ") {
			err = fmt.Errorf("its log is %q", out)
		}
		return err
	})
	l := &load{node: node, kube: k}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l.stop = cancel
	var err error
	cluster.Eventually(t, patience, "the NodePort to answer", func() error {
		l.stream, err = dialStream(ctx, net.JoinHostPort(nodeIP, strconv.Itoa(streamPort)))
		return err
	})
	if l.ledger, err = newLedger(k); err != nil {
		t.Fatal(err)
	}
	l.done.Go(func() { l.stream.run(ctx) })
	l.done.Go(func() { l.ledger.run(ctx) })
	t.Cleanup(func() { cancel(); l.done.Wait() })
	cluster.Eventually(t, patience, "the load to be under way", func() error {
		if messages, writes := l.stream.received.Load(), l.ledger.count(); messages < enough || writes < enough {
			return fmt.Errorf("%d messages, %d writes so far", messages, writes)
		}
		return nil
	})
	return l
}

// check ends the load and asserts that nobody noticed anything.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.stop()
	l.done.Wait()

	t.Logf("host stream: %s", l.stream)
	if l.stream.err != nil {
		t.Errorf("the connection from the host through the NodePort broke: %v", l.stream.err)
	}
	if l.stream.longest > longestSilence {
		t.Errorf("the connection from the host was silent for %s", l.stream.longest)
	}

	var out string
	cluster.Eventually(t, patience, "the log of the client pod", func() (err error) {
		out, err = l.kube.Output(t.Context(), "logs", "client")
		return err
	})
	t.Logf("pod stream:\n%s", strings.TrimSpace(out))
	if strings.Contains(out, "gap:") || strings.Contains(out, "duplicate:") || strings.Contains(out, "lost") || strings.Contains(out, "sent=") {
		t.Error("the connection from pod to Service broke or lost messages")
	}
	for line := range strings.Lines(out) {
		var silence time.Duration
		if rest, ok := strings.CutPrefix(line, "silent for "); ok {
			word, _, _ := strings.Cut(rest, " ")
			silence, _ = time.ParseDuration(word) // zero is short enough
		}
		if silence > longestSilence {
			t.Errorf("the connection from pod to Service was silent for %s", silence)
		}
	}
	l.ledger.check(t)
}

// hostStream is one TCP connection that must never break.
type hostStream struct {
	conn     net.Conn
	received atomic.Int64
	longest  time.Duration
	err      error
}

func (s *hostStream) String() string {
	return fmt.Sprintf("%d messages, longest silence %s", s.received.Load(), s.longest.Round(time.Millisecond))
}

func dialStream(ctx context.Context, address string) (*hostStream, error) {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &hostStream{conn: conn}, nil
}

// run sends numbers and expects them back, one at a time.
func (s *hostStream) run(ctx context.Context) {
	defer s.conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	in := bufio.NewReader(s.conn)
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		start := time.Now()
		if s.err = s.exchange(in, n); s.err != nil {
			return
		}
		s.longest = max(s.longest, time.Since(start))
		s.received.Add(1)
	}
}

func (s *hostStream) exchange(in *bufio.Reader, n int) error {
	if err := s.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(s.conn, n); err != nil {
		return fmt.Errorf("send message %d: %w", n, err)
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("receive message %d: %w", n, err)
	}
	if word, _, _ := strings.Cut(line, " "); word != strconv.Itoa(n) {
		return fmt.Errorf("message %d came back as %q", n, line)
	}
	return nil
}

// ledger writes ever higher numbers into a ConfigMap, as fast as it goes, and
// remembers what was acknowledged.
type ledger struct {
	kube *cluster.Kubectl
	api  *cluster.API

	mu           sync.Mutex
	acknowledged map[string]int
	writes       int
	failures     int
}

// ledgerKeys spread the writes over several values, so that a lost write is not
// hidden by the next one.
const ledgerKeys = 16

const ledgerPath = "/api/v1/namespaces/default/configmaps/ledger"

func newLedger(k *cluster.Kubectl) (*ledger, error) {
	api, err := k.NewAPI()
	return &ledger{kube: k, api: api, acknowledged: map[string]int{}}, err
}

func (l *ledger) run(ctx context.Context) {
	defer l.api.Close()
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		key := "k" + strconv.Itoa(n%ledgerKeys)
		body := fmt.Appendf(nil, `{"data": {%q: "%d"}}`, key, n)
		_, err := l.api.Do(ctx, http.MethodPatch, ledgerPath, "application/merge-patch+json", body)
		l.mu.Lock()
		if err == nil {
			l.acknowledged[key] = n
			l.writes++
		} else {
			l.failures++
		}
		l.mu.Unlock()
		if err != nil {
			l.api.Close() // not to wait on a connection whose other end is gone
		}
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
	}
}

func (l *ledger) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.writes)
}

// lost returns an error if a value is older than what was acknowledged before
// it was read.
func (l *ledger) lost(ctx context.Context) error {
	l.mu.Lock()
	acknowledged := map[string]int{}
	for k, n := range l.acknowledged {
		acknowledged[k] = n
	}
	l.mu.Unlock()
	var object struct {
		Data map[string]string `json:"data"`
	}
	out, err := l.kube.Output(ctx, "get", "--raw", ledgerPath)
	if err == nil {
		err = json.Unmarshal([]byte(out), &object)
	}
	if err != nil {
		return err
	}
	for key, n := range acknowledged {
		if stored, err := strconv.Atoi(object.Data[key]); err != nil || stored < n {
			return fmt.Errorf("write %d of %s was acknowledged, but %q is stored", n, key, object.Data[key])
		}
	}
	return nil
}

func (l *ledger) check(t *testing.T) {
	t.Helper()
	if err := l.lost(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("ledger: %d writes acknowledged, %d failed while the API server was away", l.writes, l.failures)
}
