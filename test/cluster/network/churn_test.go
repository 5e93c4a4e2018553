package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	churnServices = 50
	// Endpoints are told apart by address and port: each pod is as many as it has ports, and
	// every Service has two ports of every pod.
	churnPods    = 5
	portsPerPod  = 2 * churnServices
	firstPort    = 20000
	churnPort    = 80 // of every Service, TCP and UDP
	updatePace   = 25 * time.Millisecond
	connectRate  = 200
	datagramPace = 200 * time.Millisecond
)

// churnTime is a minute, or what CHURN says.
func churnTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("CHURN")
	if text == "" {
		return time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("CHURN: %v", err)
	}
	return d
}

// 50 Services and 500 endpoints come and go under load. Nobody is connected to an endpoint
// that was removed, from 100 ms after the API server has acknowledged that; datagrams
// neither; and in the end the tables are as they were.
func TestChurn(t *testing.T) {
	node, _ := shared.Node(t)
	before := tables(t, node)
	k := shared.Kubectl(t)
	site := newChurn(t, node, k)

	ctx, cancel := context.WithTimeout(t.Context(), churnTime(t))
	defer cancel()
	load := site.startLoad(ctx)
	updates := 0
	tick := time.NewTicker(updatePace)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := site.flap(t.Context()); err != nil {
			t.Fatal(err)
		}
		updates++
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	load.wait()
	t.Logf("%d updates in %s; %s", updates, churnTime(t), site.book)
	site.book.check(t, churnTime(t))

	site.removeAll(t)
	cluster.Eventually(t, 2*patience, "the tables to be as they were", func() error { return grown(before, tables(t, node)) })
}

// tables reads the dataplane's, without those whose rows are not of pods or Services.
func tables(t *testing.T, node *cluster.Node) map[string]cluster.Table {
	t.Helper()
	all, err := node.Tables()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// slack is for flows of those who were there before and still are.
const slack = 64

// grown says which tables have more rows than they had.
func grown(before, now map[string]cluster.Table) error {
	var errs []error
	for name, table := range now {
		allowed := before[name].Rows
		if strings.HasPrefix(name, "ct") || strings.HasPrefix(name, "nats") {
			allowed += slack
		}
		if table.Rows > allowed {
			errs = append(errs, fmt.Errorf("%s has %d rows, %d before", name, table.Rows, before[name].Rows))
		}
	}
	return errors.Join(errs...)
}

// churn is the Services, and who is behind them.
type churn struct {
	kube    *cluster.Kubectl
	api     *cluster.API
	client  *cluster.Namespace
	pods    []string // addresses
	ips     []string // of the Services
	members [][]bool // by slice, of the pods
	book    *book
	random  *rand.Rand
}

func newChurn(t *testing.T, node *cluster.Node, k *cluster.Kubectl) *churn {
	t.Helper()
	api, err := k.NewAPI()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	c := &churn{kube: k, api: api, book: newBook(), random: rand.New(rand.NewPCG(1, 2))}
	names := []string{"client"}
	for i := range churnPods {
		names = append(names, fmt.Sprintf("backend-%d", i))
	}
	for _, name := range names {
		k.Apply(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {
			"terminationGracePeriodSeconds": 1, "containers": [{"name": "toolbox", "image": "bothy.local/toolbox:1", "args": ["sleep"]}]}}`, name))
	}
	for _, name := range names {
		ns, ip, err := k.OpenPod(t.Context(), node, name, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		if name == "client" {
			c.client = ns
			continue
		}
		c.pods = append(c.pods, ip)
		for port := firstPort; port < firstPort+portsPerPod; port++ {
			serve(t, ns, ip, port)
		}
	}
	for i := range churnServices {
		c.ips = append(c.ips, c.create(t, i))
	}
	for i, ip := range c.ips {
		cluster.Eventually(t, patience, "Service "+strconv.Itoa(i)+" to answer", func() error {
			_, err := c.connect(t.Context(), ip)
			return err
		})
	}
	return c
}

func serviceName(i int) string { return fmt.Sprintf("churn-%02d", i) }

// create makes a Service with its two slices, all endpoints in them.
func (c *churn) create(t *testing.T, i int) string {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": %q}, "spec": {"ports": [
		{"name": "tcp", "protocol": "TCP", "port": %d}, {"name": "udp", "protocol": "UDP", "port": %d}]}}`, serviceName(i), churnPort, churnPort)
	var made struct{ Spec struct{ ClusterIP string } }
	answer, err := c.do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+c.kube.Namespace()+"/services", body)
	if err == nil {
		err = json.Unmarshal(answer, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	for half := range 2 {
		all := slices.Repeat([]bool{true}, churnPods)
		c.members = append(c.members, all)
		if _, err := c.do(t.Context(), http.MethodPost, c.slicesPath(), c.slice(2*i+half, all)); err != nil {
			t.Fatal(err)
		}
	}
	return made.Spec.ClusterIP
}

func (c *churn) do(ctx context.Context, method, path, body string) ([]byte, error) {
	return c.api.Do(ctx, method, path, "application/json", []byte(body))
}

func (c *churn) slicesPath() string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + c.kube.Namespace() + "/endpointslices"
}

func sliceName(s int) string { return fmt.Sprintf("%s-%d", serviceName(s/2), s%2) }

func (c *churn) slice(s int, members []bool) string {
	var endpoints []string
	for i, in := range members {
		if in {
			endpoints = append(endpoints, fmt.Sprintf(`{"addresses": [%q], "conditions": {"ready": true}}`, c.pods[i]))
		}
	}
	return fmt.Sprintf(`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": {"name": %q, "labels": {"kubernetes.io/service-name": %q, "endpointslice.kubernetes.io/managed-by": "churn"}},
		"ports": [{"name": "tcp", "protocol": "TCP", "port": %d}, {"name": "udp", "protocol": "UDP", "port": %d}],
		"endpoints": [%s]}`, sliceName(s), serviceName(s/2), firstPort+s, firstPort+s, strings.Join(endpoints, ","))
}

// backend is the endpoint that a pod is in a slice.
func (c *churn) backend(s, pod int) string { return fmt.Sprintf("%s:%d", c.pods[pod], firstPort+s) }

// flap gives one slice other members. The first slice of a Service is never empty, so that
// there is always somebody to answer.
func (c *churn) flap(ctx context.Context) error {
	s := c.random.IntN(len(c.members))
	next := make([]bool, churnPods)
	for i := range next {
		next[i] = c.random.IntN(2) == 0
	}
	if s%2 == 0 {
		next[c.random.IntN(churnPods)] = true
	}
	for i, in := range next {
		if in && !c.members[s][i] {
			c.book.add(c.backend(s, i)) // it may be in force before the answer is here
		}
	}
	if _, err := c.do(ctx, http.MethodPut, c.slicesPath()+"/"+sliceName(s), c.slice(s, next)); err != nil {
		return err
	}
	for i, in := range next {
		if !in && c.members[s][i] {
			c.book.remove(c.backend(s, i))
		}
	}
	c.members[s] = next
	return nil
}

// removeAll takes away what the test has made, and waits until it is gone.
func (c *churn) removeAll(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/api/v1/namespaces/" + c.kube.Namespace() + "/services", c.slicesPath(), "/api/v1/namespaces/" + c.kube.Namespace() + "/pods"} {
		if _, err := c.do(t.Context(), http.MethodDelete, path, ""); err != nil {
			t.Fatal(err)
		}
	}
	cluster.Eventually(t, patience, "the pods to be gone", func() error {
		pods, err := c.kube.Pods(t.Context())
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d are left", len(pods))
		}
		return err
	})
}
