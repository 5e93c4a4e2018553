// Package nodes has two nodes be one cluster: a worker joins by the Machine object that is committed for it, packets cross
// between both, and the worker leaves with its Machine.
package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/test/cluster"
)

// patience is for what takes seconds on an idle machine and many on a loaded one.
const patience = 120 * time.Second

// two is a cluster of two nodes.
type two struct {
	repo       *cluster.Repo
	cp, worker *cluster.Node
	k          *cluster.Kubectl
	// addresses of the nodes.
	cpIP, workerIP string
}

// settings give the site addresses for load balancers.
const settings = `apiVersion: bothy.dev/v1alpha1
kind: Cluster
metadata: {name: default}
spec:
  network:
    loadBalancer:
      pools: [{name: lan, addresses: ["203.0.113.16/28", "2001:db8:113::10/124"]}]
`

// join starts both nodes, commits what `bothy up` asks for, and waits until both are Ready.
func join(t *testing.T) *two {
	t.Helper()
	c := &two{repo: cluster.NewRepo(t, false, map[string]string{"clusters/default/cluster.yaml": settings})}
	c.cp = cluster.NodeFor(t, c.repo)
	c.cp.Workers = 1
	c.worker = c.cp.Worker(1)
	t.Cleanup(func() {
		if t.Failed() {
			c.worker.Dump(t)
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := c.cp.Command(ctx, c.cp.UpCommandArgs("-o", "json")...)
	var stdout bytes.Buffer
	said := &output{}
	cmd.Stdout, cmd.Stderr = &stdout, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, patience, "bothy up to say what to commit", func() error {
		if text := said.String(); strings.Count(text, "--- ") < 2 || !strings.HasSuffix(strings.TrimSpace(text), "---") && !strings.Contains(text, "\n---\n") {
			return fmt.Errorf("it said %s", text)
		}
		return nil
	})
	c.commit(t, said.String())
	if err := cmd.Wait(); err != nil {
		t.Fatalf("bothy up: %v\n%s", err, said.String())
	}
	up := &cluster.UpResult{}
	if err := json.Unmarshal(stdout.Bytes(), up); err != nil || len(up.Nodes) != 1 {
		t.Fatalf("bothy up printed %s: %v", stdout.Bytes(), err)
	}
	c.cpIP, c.workerIP = up.NodeIP, up.Nodes[0].NodeIP
	c.k = c.cp.Kubectl(t).TestNamespace(t)
	return c
}

// output is what a command has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// commit puts the files that `bothy up` has printed into the repository, as its reader would.
func (c *two) commit(t *testing.T, said string) {
	t.Helper()
	_, rest, _ := strings.Cut(said, "\n--- ")
	rest, _, _ = strings.Cut(rest, "\n---\n")
	for part := range strings.SplitSeq(rest, "\n--- ") {
		name, content, _ := strings.Cut(part, "\n")
		c.repo.Write(t, name, content+"\n")
	}
	c.repo.Push(t, "Enrol the machines", cluster.Signed)
	c.reconcile(t)
}

// reconcile has both nodes fetch.
func (c *two) reconcile(t *testing.T) {
	t.Helper()
	c.cp.Run(t, "reconcile")
	c.worker.Run(t, "reconcile")
}

// pod is a manifest of a pod on a node.
func pod(name string, on *cluster.Node, args ...string) string {
	quoted, _ := json.Marshal(args)
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "labels": {"app": %q}},
		"spec": {"terminationGracePeriodSeconds": 1, "nodeSelector": {"kubernetes.io/hostname": %q}, "containers": [{"name": "toolbox", "image": "bothy.local/toolbox:1", "args": %s,
		"env": [{"name": "POD_NAME", "value": %q}]}]}}`, name, name, on.Name, quoted, name)
}

// service is a manifest of a Service in front of the pods of that name.
func service(name, app, spec string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": %q}, "spec": {"ipFamilyPolicy": "PreferDualStack", "selector": {"app": %q}, %s
		"ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "echo", "port": 81, "targetPort": 8081}, {"name": "udp", "protocol": "UDP", "port": 82, "targetPort": 8082}]}}`, name, app, spec)
}

func (c *two) ready(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		c.k.Run(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
	}
}

// addresses are those of a pod, in both families if the machine has both.
func (c *two) addresses(t *testing.T, pod string) []string {
	t.Helper()
	return strings.Fields(c.k.Run(t, "get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"))
}

// reaches waits until a pod is answered by whom it should be, or, if that is "", by nobody. It returns the answer, which
// also has the address that the server saw.
func (c *two) reaches(t *testing.T, from, proto, to, who string) (answer string) {
	t.Helper()
	cluster.Eventually(t, patience, fmt.Sprintf("%s to reach %q at %s over %s", from, who, to, proto), func() error {
		out, err := c.k.Exec(t.Context(), from, "/toolbox", "dial", "-timeout", "2s", "-send", "marco", proto, to)
		switch {
		case who == "" && err == nil:
			return fmt.Errorf("it was answered %q", out)
		case who == "" && !strings.Contains(err.Error(), "timeout"):
			return fmt.Errorf("want silence, got %w", err)
		case who != "" && err != nil:
			return err
		case who != "" && !strings.HasPrefix(out, who+" "):
			return fmt.Errorf("it was answered %q", out)
		}
		answer = out
		return nil
	})
	return answer
}

// answer is what a web server in a pod says.
type answer struct{ Identity, Remote string }

// get asks from this machine.
func get(ctx context.Context, address string) (answer, error) {
	var a answer
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
		return a, err
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(conn); err != nil {
		return a, err
	}
	_, body, _ := strings.Cut(text.String(), "\r\n\r\n")
	return a, json.Unmarshal([]byte(body), &a)
}

// answers waits until a pod answers this machine at an address, and returns whom it saw.
func answers(t *testing.T, address, who string) netip.Addr {
	t.Helper()
	var saw netip.AddrPort
	cluster.Eventually(t, patience, who+" to answer at "+address, func() error {
		a, err := get(t.Context(), address)
		if err != nil {
			return err
		}
		if a.Identity != who {
			return fmt.Errorf("%s answers", a.Identity)
		}
		saw, err = netip.ParseAddrPort(a.Remote)
		return err
	})
	return saw.Addr().Unmap()
}

// routeTo has this machine look for an address on the nodes' link.
func (c *two) routeTo(t *testing.T, address string) {
	t.Helper()
	link, err := netlink.LinkByName("bothy0-" + c.cp.Name)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr(address)
	dst := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
}
