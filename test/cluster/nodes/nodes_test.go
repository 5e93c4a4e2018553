package nodes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// Two nodes are one cluster, until one of them leaves it.
func TestTwoNodes(t *testing.T) {
	c := join(t)
	t.Run("both are Ready, each in its role", c.roles)
	c.k.Apply(t, pod("a", c.cp, "serve"))
	c.k.Apply(t, pod("c", c.cp, "serve"))
	c.k.Apply(t, pod("b", c.worker, "serve"))
	c.k.Apply(t, service("a", "a", `"type": "NodePort",`))
	c.k.Apply(t, service("b", "b", `"type": "NodePort",`))
	c.k.Apply(t, service("local", "b", `"type": "NodePort", "externalTrafficPolicy": "Local",`))
	c.ready(t, "a", "b", "c")
	t.Run("pods reach pods and Services of the other node", c.crossing)
	t.Run("node ports answer on both nodes", c.nodePorts)
	t.Run("policies hold between nodes", c.policies)
	t.Run("volumes are on the node of their pod", c.volumes)
	t.Run("flows name pods of the other node", c.flows)
	t.Run("agents are killed under load", c.kills)
	t.Run("packets between the nodes are wrapped", c.tunnelled)
	t.Run("a load balancer's addresses leave a node that is dead", c.failOver)
	t.Run("a second bothy up finds them", func(t *testing.T) { c.cp.Run(t, c.cp.UpCommandArgs()...) })
	t.Run("a machine leaves, and comes back", c.leave)
}

func (c *two) roles(t *testing.T) {
	cluster.Eventually(t, patience, "the control plane to know the worker", func() error {
		st, err := c.cp.ReadStatus(t.Context())
		if err == nil && (st.Node.Role != "control-plane" || len(st.Machines) != 1 || !st.Machines[0].Ready) {
			err = fmt.Errorf("it says %+v %+v", st.Node, st.Machines)
		}
		return err
	})
	st := c.cp.Status(t)
	w := c.worker.Status(t)
	if w.Node.Role != "worker" || !w.Node.Ready || w.Git.Accepted.Commit != st.Git.Accepted.Commit || w.Git.Phase != "following" {
		t.Errorf("the worker says %+v %+v", w.Node, w.Git)
	}
	for _, file := range []string{"ca.key", "front-proxy-ca.key", "sa.key", "encryption-keys.json"} {
		if _, err := os.Stat(filepath.Join(c.worker.State, "pki", file)); !os.IsNotExist(err) {
			t.Errorf("the worker has %s: %v", file, err)
		}
	}
	if out := c.cp.Run(t, "status"); !strings.Contains(out, c.worker.Name) || !strings.Contains(out, "worker") {
		t.Errorf("bothy status does not show the worker:\n%s", out)
	}
	if out := c.k.Run(t, "get", "node", c.worker.Name, "-o", "jsonpath={.metadata.labels}"); !strings.Contains(out, "node-role.kubernetes.io/worker") {
		t.Errorf("labels %s", out)
	}
}

func (c *two) crossing(t *testing.T) {
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		from, to := way[0], way[1]
		own := c.addresses(t, from)
		for i, ip := range c.addresses(t, to) {
			for _, out := range []string{c.reaches(t, from, "tcp", net.JoinHostPort(ip, "8081"), to), c.reaches(t, from, "udp", net.JoinHostPort(ip, "8082"), to)} {
				if !strings.Contains(out, own[i]) {
					t.Errorf("%s, which has the address %s, was seen by %s as %q", from, own[i], to, out)
				}
			}
		}
		// The name is resolved on the pod's own node.
		c.reaches(t, from, "tcp", to+":81", to)
		c.reaches(t, from, "udp", to+":82", to)
		ips := c.k.Run(t, "get", "service", to, "-o", "jsonpath={.spec.clusterIPs[*]}")
		for _, ip := range strings.Fields(ips) {
			c.reaches(t, from, "tcp", net.JoinHostPort(ip, "81"), to)
		}
	}
	out, err := c.k.Exec(t.Context(), "b", "/toolbox", "resolve", "kubernetes.default.svc.cluster.local")
	if err != nil || !strings.Contains(out, "10.96.0.1") {
		t.Errorf("the worker's DNS says %q, %v", out, err)
	}
	if got := c.k.Run(t, "logs", "b", "--tail", "1"); strings.Contains(got, "rror") {
		t.Errorf("logs of a pod of the worker: %s", got)
	}
}

func (c *two) nodePorts(t *testing.T) {
	port := func(service string) string {
		return c.k.Run(t, "get", "service", service, "-o", "jsonpath={.spec.ports[0].nodePort}")
	}
	for _, ip := range []string{c.cpIP, c.workerIP} {
		answers(t, net.JoinHostPort(ip, port("a")), "a")
		answers(t, net.JoinHostPort(ip, port("b")), "b")
	}
	saw := answers(t, net.JoinHostPort(c.workerIP, port("local")), "b")
	if host := saw.String(); host == c.cpIP || host == c.workerIP || !strings.HasPrefix(host, c.cpIP[:strings.LastIndexByte(c.cpIP, '.')+1]) {
		t.Errorf("with policy Local the pod sees %s, not this machine", host)
	}
	if a, err := get(t.Context(), net.JoinHostPort(c.cpIP, port("local"))); err == nil {
		t.Errorf("with policy Local a node without endpoint has %s answer", a.Identity)
	}
}

// policies closes the worker's pod for all but one pod of the other node, and that one for all but the worker's.
func (c *two) policies(t *testing.T) {
	a, b := c.addresses(t, "a")[0]+":8081", c.addresses(t, "b")[0]+":8081"
	c.reaches(t, "c", "tcp", b, "b")
	c.k.Apply(t, `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "to-b"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}},
		"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}}`)
	c.reaches(t, "c", "tcp", b, "")
	c.reaches(t, "a", "tcp", b, "b")
	c.k.Apply(t, `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "from-b"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}},
		"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]}}`)
	c.reaches(t, "b", "tcp", a, "")
	c.reaches(t, "b", "tcp", c.addresses(t, "c")[0]+":8081", "c")
	// A pod that is new on the other node is known before it can be let in.
	c.k.Apply(t, strings.Replace(pod("late", c.cp, "sleep"), `"app": "late"`, `"app": "a"`, 1))
	c.ready(t, "late")
	c.reaches(t, "late", "tcp", b, "b")
	c.k.Run(t, "delete", "networkpolicy", "--all")
	c.k.Run(t, "delete", "pod", "late")
	c.reaches(t, "c", "tcp", b, "b")
}

func (c *two) flows(t *testing.T) {
	type peer struct{ Namespace, Pod, Node string }
	to := c.addresses(t, "b")[0] + ":8081"
	for _, n := range []*cluster.Node{c.cp, c.worker} {
		cluster.Eventually(t, patience, "node "+n.Name+" to tell of the flow", func() error {
			if _, err := c.k.Exec(t.Context(), "a", "/toolbox", "dial", "-send", "marco", "tcp", to); err != nil {
				return err
			}
			r := n.Try(t, "flows", "--table", "-o", "json", "--namespace", c.k.Namespace())
			var entries []struct{ From, To peer }
			if err := json.Unmarshal([]byte(r.Stdout), &entries); err != nil {
				return fmt.Errorf("%w: %s", err, r.Stderr)
			}
			for _, e := range entries {
				if e.From.Pod == "a" && e.From.Node == c.cp.Name && e.To.Pod == "b" && e.To.Node == c.worker.Name {
					return nil
				}
			}
			return fmt.Errorf("it has %+v", entries)
		})
	}
}

// kills ends the agents of both nodes while pods of one are clients of the other: nobody notices.
func (c *two) kills(t *testing.T) {
	client, _, err := c.k.OpenPod(t.Context(), c.cp, "a", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	vip := c.k.Run(t, "get", "service", "b", "-o", "jsonpath={.spec.clusterIP}")
	l := &load{dial: client.Dial}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, address := range []string{net.JoinHostPort(vip, "81"), c.addresses(t, "b")[0] + ":8081"} {
		l.done.Go(func() { l.new(ctx, address) })
		l.done.Go(func() { l.last(ctx, address) })
	}
	enough := func(least int) func() error {
		return func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.exchanges < least {
				return fmt.Errorf("%d exchanges, failures %v", l.exchanges, l.failures)
			}
			return nil
		}
	}
	cluster.Eventually(t, patience, "the load to be under way", enough(100))
	for _, n := range []*cluster.Node{c.worker, c.cp} {
		victim := n.MustProcess(t, "agent")
		if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cluster.Eventually(t, patience, "the agent of "+n.Name+" to be back, and ready", func() error {
			if p, err := n.Process("agent"); err != nil || p.PID == victim.PID {
				return fmt.Errorf("process %v: %w", p, err)
			}
			st, err := n.ReadStatus(t.Context())
			if err == nil && !st.Node.Ready {
				err = errors.New(st.Node.Reason)
			}
			return err
		})
	}
	l.mu.Lock()
	so := l.exchanges
	l.mu.Unlock()
	cluster.Eventually(t, patience, "the load to go on", enough(so+100))
	stop()
	l.done.Wait()
	t.Logf("%d exchanges over new and lasting connections", l.exchanges)
	if len(l.failures) > 0 {
		t.Errorf("%d failed: %v", len(l.failures), l.failures[:min(5, len(l.failures))])
	}
}

// load is exchanges with a pod, over connections that are new and some that last.
type load struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	done sync.WaitGroup

	mu        sync.Mutex
	exchanges int
	failures  []string
}

const (
	pace = 10 * time.Millisecond
	// limit is generous: both cores of a test machine may be busy starting processes.
	limit = 20 * time.Second
)

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, err.Error())
		return
	}
	l.exchanges++
}

func (l *load) new(ctx context.Context, address string) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		open.Go(func() {
			conn, err := l.connect(ctx, address)
			if err == nil {
				err = exchange(conn, bufio.NewReader(conn))
				conn.Close()
			}
			l.note(err)
		})
	}
}

func (l *load) last(ctx context.Context, address string) {
	conn, err := l.connect(ctx, address)
	if err != nil {
		l.note(err)
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := exchange(conn, in)
		if l.note(err); err != nil {
			return
		}
	}
}

func (l *load) connect(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return l.dial(ctx, "tcp", address)
}

func exchange(conn net.Conn, in *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, "marco"); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err == nil && !strings.Contains(line, "marco") {
		err = fmt.Errorf("marco came back as %q", line)
	}
	return err
}

// leave removes the worker's Machine: its certificates are worth nothing from then on, its Node and the routes
// to it go, a load balancer's address moves, and the machine runs nothing. With its Machine it comes back.
func (c *two) leave(t *testing.T) {
	as := c.asWorker(t, "kubelet")
	if out, err := as("get", "node", c.worker.Name, "-o", "name"); err != nil {
		t.Fatalf("the worker's kubelet cannot read its Node: %v %s", err, out)
	}
	if out, err := as("get", "secrets", "-A"); err == nil || !strings.Contains(out, "orbidden") {
		t.Errorf("the worker's kubelet reads all Secrets: %v %s", err, out)
	}
	addresses := c.balancers(t)
	defer c.k.Run(t, "delete", "service", "-l", "balanced")

	file := filepath.Join(c.repo.Path, "machines", c.worker.Name+".yaml")
	machine := c.repo.Read(t, file)
	c.repo.Remove(t, file)
	c.repo.Push(t, "Remove the worker", cluster.Signed)
	c.cp.Run(t, "reconcile")
	if out, err := as("get", "node", c.worker.Name); err == nil || !strings.Contains(out, "not enrolled any more") {
		t.Errorf("with the certificate of a machine that left: %v %s", err, out)
	}
	cluster.Eventually(t, patience, "the worker's Node and routes to go", func() error {
		if out := c.k.Run(t, "get", "nodes", "-o", "name"); strings.Contains(out, c.worker.Name) {
			return errors.New(out)
		}
		st, err := c.cp.ReadStatus(t.Context())
		if err == nil && (st.Network == nil || len(st.Network.Nodes.Routes) > 0) {
			err = fmt.Errorf("%+v", st.Network)
		}
		return err
	})
	for _, address := range addresses {
		answers(t, net.JoinHostPort(address, "80"), "a")
	}
	c.worker.Run(t, "reconcile")
	cluster.Eventually(t, patience, "the worker to run nothing", func() error {
		st, err := c.worker.ReadStatus(t.Context())
		if err != nil {
			return err
		}
		if kube, err := c.worker.Process("kube"); err == nil {
			return fmt.Errorf("%v runs", kube)
		}
		if !st.Node.Held || !strings.Contains(st.Node.Reason, "not enrolled") {
			return fmt.Errorf("%+v", st.Node)
		}
		return nil
	})

	c.repo.Write(t, file, machine)
	c.repo.Push(t, "Let the worker in again", cluster.Signed)
	c.reconcile(t)
	cluster.Eventually(t, patience, "the worker to be Ready again", func() error {
		st, err := c.worker.ReadStatus(t.Context())
		if err == nil && !st.Node.Ready {
			err = errors.New(st.Node.Reason)
		}
		return err
	})
	c.k.Run(t, "wait", "--for=condition=Ready", "node/"+c.worker.Name, "--timeout", patience.String())
}

// balancers makes so many Services of type LoadBalancer that it would be a rare chance if one node had all addresses, and
// returns these.
func (c *two) balancers(t *testing.T) []string {
	t.Helper()
	const count = 8
	var out []string
	for i := range count {
		name := fmt.Sprintf("balanced-%d", i)
		c.k.Apply(t, service(name, "a", `"type": "LoadBalancer", "ipFamilies": ["IPv4"],`))
		c.k.Run(t, "label", "service", name, "balanced=")
	}
	families := len(c.addresses(t, "a"))
	for i := range count {
		cluster.Eventually(t, patience, "the Services to have addresses", func() error {
			ips, err := c.k.Field(t.Context(), fmt.Sprintf("service/balanced-%d", i), "{.status.loadBalancer.ingress[*].ip}")
			if err == nil && len(strings.Fields(ips)) != families {
				err = fmt.Errorf("%q, want %d", ips, families)
			}
			if err == nil {
				for ip := range strings.FieldsSeq(ips) {
					c.routeTo(t, ip)
					out = append(out, ip)
				}
			}
			return err
		})
	}
	for _, ip := range out {
		answers(t, net.JoinHostPort(ip, "80"), "a")
	}
	return out
}

// asWorker is kubectl with the certificate of a part of the worker.
func (c *two) asWorker(t *testing.T, part string) func(args ...string) (string, error) {
	t.Helper()
	pki := filepath.Join(c.worker.State, "pki")
	data, err := os.ReadFile(filepath.Join(pki, part+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	stolen := filepath.Join(t.TempDir(), part+".pem")
	if err := os.WriteFile(stolen, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) (string, error) {
		all := append([]string{
			"--kubeconfig", "/dev/null", "--server", "https://" + net.JoinHostPort(c.cpIP, "6443"), "--certificate-authority", filepath.Join(pki, "ca.crt"),
			"--client-certificate", stolen, "--client-key", stolen,
		}, args...)
		cmd := c.k.Command(t.Context(), all...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
