package netdata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bothy-os/bothy/netdata/maps"
)

// TestPolicy is a node's life with NetworkPolicies, on real interfaces.
func TestPolicy(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	plugin := buildPlugin(t, n.dir)
	n.api = newFakeAPI(t)
	n.cfg.PodCIDRs = testPodCIDRs
	n.api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	n.api.kubeconfig(n.dir)
	n.start("cni", "policy", "services")
	a, b, c := n.pod(plugin, "a"), n.pod(plugin, "b"), n.pod(plugin, "c")
	for _, p := range []pod{a, b, c} {
		echoTCP(t, p.ns, ":8080", p.name)
		echoUDP(t, p.ns, ":8080", p.name)
	}
	echoTCP(t, "", ":6443", "host")
	echoTCP(t, n.outside, ":9000", "outside")
	n.api.put(service("web", "10.96.0.20", 30080, 80, 8080))
	n.api.put(slice("web", 8080, b))
	wait(t, "the service", func() error { _, _, err := ask(t, a.ns, "tcp4", "10.96.0.20:80"); return err })

	ways := map[string]func(proto string) string{
		"to the pod": func(proto string) string {
			if strings.HasSuffix(proto, "6") {
				return b.at6(8080)
			}
			return b.at(8080)
		},
		"to the service": func(proto string) string {
			if strings.HasSuffix(proto, "6") {
				return b.at6(8080)
			}
			return "10.96.0.20:80"
		},
	}
	each := func(t *testing.T, check func(proto, addr string)) {
		for _, proto := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
			for _, addr := range ways {
				check(proto, addr(proto))
			}
		}
	}

	t.Run("a running stream is cut for both ends", func(t *testing.T) { n.cut(a, b) })
	t.Run("who waits for an answer is told as well", func(t *testing.T) { n.cutIdle(t, a, b, c) })

	n.enforce(policyOf("ingress-from-a", "b", nil, from("a")))
	t.Run("only who is selected gets in", func(t *testing.T) {
		each(t, func(proto, addr string) {
			reaches(t, a.ns, proto, addr)
			dropped(t, c.ns, proto, addr)
		})
		dropped(t, n.outside, "tcp4", "192.168.50.1:30080")
	})
	t.Run("the node gets in", func(t *testing.T) { each(t, func(proto, addr string) { reaches(t, "", proto, addr) }) })
	t.Run("answers come back", func(t *testing.T) { reaches(t, b.ns, "tcp4", c.at(8080)) })
	t.Run("errors about a flow come back", func(t *testing.T) {
		n.enforce(policyOf("a-hears-nobody", "a", nil))
		if _, _, err := ask(t, a.ns, "udp4", b.at(8099)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want the refusal of the closed port", err)
		}
		n.withdraw(policyOf("a-hears-nobody", "a", nil))
	})

	block := policyOf("ingress-from-a", "b", nil, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.168.50.0/24"}})
	n.enforce(block)
	t.Run("a client of a node port is known by its address", func(t *testing.T) {
		expect(t, n.outside, "tcp4", "192.168.50.1:30080", "b", outsideIP.String())
		dropped(t, a.ns, "tcp4", b.at(8080))
	})
	n.withdraw(block)

	n.enforce(egressOf("egress-to-b", "a", []networkingv1.NetworkPolicyPort{tcpPort(8080)}, from("b")))
	t.Run("only who is selected is reached", func(t *testing.T) {
		reaches(t, a.ns, "tcp4", b.at(8080))
		reaches(t, a.ns, "tcp4", "10.96.0.20:80")
		dropped(t, a.ns, "udp4", b.at(8080))
		dropped(t, a.ns, "tcp4", c.at(8080))
		dropped(t, a.ns, "tcp4", "192.168.50.2:9000")
		reaches(t, a.ns, "tcp4", "192.168.50.1:6443")
	})
	t.Run("all addresses of the node are reached", func(t *testing.T) {
		addLoopbackAddress(t, "192.0.2.77/32")
		reaches(t, a.ns, "tcp4", "192.0.2.77:6443")
		n.enforce(policyOf("elsewhere", "c", nil)) // the flow must survive being judged again
		reaches(t, a.ns, "tcp4", "192.0.2.77:6443")
	})
	t.Run("a denied flow leaves no translation", func(t *testing.T) {
		n.enforce(egressOf("egress-to-b", "a", nil, from("nobody")))
		before := translations(t, n)
		dropped(t, a.ns, "tcp4", "10.96.0.20:80")
		if after := translations(t, n); after > before {
			t.Errorf("%d translations, %d before", after, before)
		}
	})
	t.Run("nothing leaves a pod before its policy", func(t *testing.T) { n.flood(plugin) })
	t.Run("policy outlives the agent", func(t *testing.T) {
		n.stop()
		dropped(t, a.ns, "tcp4", b.at(8080))
		n.start("cni")
		dropped(t, a.ns, "tcp4", b.at(8080))
		reaches(t, c.ns, "tcp4", "192.168.50.1:6443")
	})
	if s := n.network.Status(); s.Drops["policy-ingress"] == 0 || s.Drops["policy-egress"] == 0 || s.Drops["refused-revoked"] == 0 {
		t.Errorf("counters %v: policy reasons are missing", s.Drops)
	}
}

// cut has a policy end a stream: one end only writes, the other only reads.
func (n *testNode) cut(a, b pod) {
	t := n.t
	l, err := in(t, b.ns, func() (net.Listener, error) { return net.Listen("tcp4", ":9090") })
	must(t, err)
	defer l.Close()
	client, err := dial(t, a.ns, "tcp4", b.at(9090))
	must(t, err)
	defer client.Close()
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	ends := make(chan error, 2)
	// Super-packets, as a bulk sender makes them: the policy meets the stream in full flow.
	go func() { ends <- writeAll(client) }()
	go func() { ends <- readAll(server) }()
	n.enforce(policyOf("nobody", "b", nil))
	started := time.Now()
	for range 2 {
		select {
		case err := <-ends:
			if !cutOff(err) {
				t.Errorf("an end got %v, want a reset", err)
			}
		case <-time.After(patiently(5 * time.Second)):
			t.Fatal("an end of the stream was not told in 5 s")
		}
	}
	t.Logf("both ends were told within %s", time.Since(started))
	n.withdraw(policyOf("nobody", "b", nil))
}

// cutOff is what an end gets of a connection that policy has ended: by a reset, which the next packet becomes, or because its
// socket was aborted, if that is sooner.
func cutOff(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNABORTED)
}

// cutIdle has a policy end flows on which nobody speaks: no packet meets the policy. What is still allowed stays.
func (n *testNode) cutIdle(t *testing.T, a, b, c pod) {
	type flow struct {
		what           string
		client, server net.Conn // no server of datagrams
	}
	var cut, kept []flow
	open := func(from pod, what, proto, at string) flow {
		t.Helper()
		f := flow{what: from.name + " " + what + " " + proto}
		if strings.HasPrefix(proto, "udp") {
			var err error
			f.client, err = dial(t, from.ns, proto, at)
			must(t, err)
			t.Cleanup(func() { f.client.Close() })
			sayTo(t, f.client, "b")
			return f
		}
		// The echo of the other tests holds its ends itself; here both are watched.
		l, err := in(t, b.ns, func() (net.Listener, error) { return net.Listen("tcp", ":9191") })
		must(t, err)
		defer l.Close()
		f.client, err = dial(t, from.ns, proto, at)
		must(t, err)
		f.server, err = l.Accept()
		must(t, err)
		t.Cleanup(func() { f.client.Close(); f.server.Close() })
		return f
	}
	n.api.put(service("idle", "10.96.0.23", 0, 91, 9191))
	n.api.put(slice("idle", 9191, b))
	wait(t, "the service", func() error {
		l, err := in(t, b.ns, func() (net.Listener, error) { return net.Listen("tcp", ":9191") })
		if err != nil {
			return err
		}
		defer l.Close()
		conn, err := dial(t, a.ns, "tcp4", "10.96.0.23:91")
		if err == nil {
			conn.Close()
		}
		return err
	})
	for _, from := range []pod{a, c} {
		for _, x := range []struct{ what, proto, at string }{
			{"to the pod", "tcp4", b.at(9191)},
			{"to the pod", "tcp6", b.at6(9191)},
			{"to the service", "tcp4", "10.96.0.23:91"},
			{"to the pod", "udp4", b.at(8080)},
			{"to the pod", "udp6", b.at6(8080)},
			{"to the service", "udp4", "10.96.0.20:80"},
		} {
			f := open(from, x.what, x.proto, x.at)
			if from.name == "a" {
				cut = append(cut, f)
			} else {
				kept = append(kept, f)
			}
		}
	}
	type end struct {
		what string
		err  error
	}
	ends, count := make(chan end), 0
	for _, f := range cut {
		for whose, conn := range map[string]net.Conn{"client": f.client, "server": f.server} {
			if conn == nil {
				continue
			}
			count++
			must(t, conn.SetDeadline(time.Now().Add(patiently(5*time.Second))))
			go func() {
				_, err := conn.Read(make([]byte, 1))
				ends <- end{whose + " of " + f.what, err}
			}()
		}
	}
	n.enforce(policyOf("only-from-c", "b", nil, from("c")))
	started := time.Now()
	for range count {
		if e := <-ends; !cutOff(e.err) {
			t.Errorf("%s got %v, want to be told", e.what, e.err)
		}
	}
	t.Logf("%d ends were told within %s", count, time.Since(started))
	for _, f := range kept {
		if f.server == nil {
			sayTo(t, f.client, "b")
			continue
		}
		if _, err := f.client.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", f.what, err)
		}
		must(t, f.server.SetDeadline(time.Now().Add(patiently(3*time.Second))))
		if _, err := f.server.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s, which is allowed: %v", f.what, err)
		}
	}
	n.withdraw(policyOf("only-from-c", "b", nil))
}

func writeAll(c net.Conn) error {
	data := make([]byte, 1<<20)
	for {
		if _, err := c.Write(data); err != nil {
			return err
		}
	}
}

func readAll(c net.Conn) error {
	buf := make([]byte, 1<<16)
	for {
		if _, err := c.Read(buf); err != nil {
			return err
		}
	}
}

// flood has a pod send from the moment it has an interface until its policy has long been
// in force, and counts what another pod hears of it.
func (n *testNode) flood(plugin string) {
	t := n.t
	n.api.put(podObject("listener"))
	listener := n.pod(plugin, "listener")
	heard, err := in(t, listener.ns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", ":7000") })
	must(t, err)
	defer heard.Close()
	n.api.put(egressOf("silence", "flooder", nil, from("nobody")))
	if got := n.floodOnce(plugin, "flooder", listener, heard); got != 0 {
		t.Errorf("%d datagrams of a silenced pod arrived", got)
	}
	// The counting must be able to see one that is not silenced.
	if got := n.floodOnce(plugin, "free", listener, heard); got == 0 {
		t.Error("nothing of a pod without policy arrived: the test would not see a leak")
	}
}

func (n *testNode) floodOnce(plugin, name string, to pod, heard net.PacketConn) int {
	t := n.t
	t.Helper()
	n.api.put(podObject(name))
	ns := n.makeNetns(name)
	ctx, stop := context.WithCancel(context.Background())
	sent := make(chan int, 1)
	go func() { sent <- sendAll(ctx, t, ns, to) }()
	_, err := n.cni(plugin, "ADD", "container-"+name, ns)
	must(t, err)
	// Until then it has been in force for longer than it takes to be put in force.
	must(t, heard.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	got := 0
	for buf := make([]byte, 100); ; got++ {
		if _, _, err := heard.ReadFrom(buf); err != nil {
			break
		}
	}
	stop()
	if k := <-sent; k == 0 {
		t.Errorf("%s could send nothing at all: there was no flood", name)
	}
	_, err = n.cni(plugin, "DEL", "container-"+name, ns)
	must(t, err)
	return got
}

// sendAll sends whenever the pod has a way to, and returns how often it had.
func sendAll(ctx context.Context, t *testing.T, ns string, to pod) int {
	c, err := in(t, ns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", ":0") })
	if err != nil {
		return 0
	}
	defer c.Close()
	sent, addr := 0, &net.UDPAddr{IP: to.addr.AsSlice(), Port: 7000}
	for ctx.Err() == nil {
		if _, err := c.WriteTo([]byte("leak"), addr); err == nil {
			sent++
		}
	}
	return sent
}

// enforce puts a policy and waits until it is in force.
func (n *testNode) enforce(p *networkingv1.NetworkPolicy) {
	n.t.Helper()
	n.inForce("policy "+p.Name, func() { n.api.put(p) })
}

// withdraw removes a policy and waits until it is not in force any more.
func (n *testNode) withdraw(p *networkingv1.NetworkPolicy) {
	n.t.Helper()
	n.inForce("policy "+p.Name+" to be gone and", func() { n.api.remove(p) })
}

func (n *testNode) inForce(what string, change func()) {
	n.t.Helper()
	before, err := n.network.kernel.Load().Tables.State()
	must(n.t, err)
	change()
	wait(n.t, what+" to be in force", func() error {
		now, err := n.network.kernel.Load().Tables.State()
		if err == nil && now == before {
			err = fmt.Errorf("revision %d", now.PolicyRevision)
		}
		return err
	})
}

func policyOf(name, app string, ports []networkingv1.NetworkPolicyPort, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(peers) > 0 {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}}
	}
	return p
}

func egressOf(name, app string, ports []networkingv1.NetworkPolicyPort, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	p := policyOf(name, app, nil)
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}}
	return p
}

func from(app string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
}

func tcpPort(number int32) networkingv1.NetworkPolicyPort {
	port := intstr.FromInt32(number)
	return networkingv1.NetworkPolicyPort{Port: &port}
}

func reaches(t *testing.T, ns, proto, addr string) {
	t.Helper()
	if _, _, err := ask(t, ns, proto, addr); err != nil {
		t.Errorf("%s %s: %v", proto, addr, err)
	}
}

// dropped expects silence: neither an answer nor a refusal.
func dropped(t *testing.T, ns, proto, addr string) {
	t.Helper()
	c, err := in(t, ns, func() (net.Conn, error) { return net.DialTimeout(proto, addr, 300*time.Millisecond) })
	if err == nil {
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
		if _, err = c.Write([]byte("hello\n")); err == nil {
			_, err = c.Read(make([]byte, 100))
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(err) {
		t.Errorf("%s %s: got %v, want silence", proto, addr, err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func translations(t *testing.T, n *testNode) (count int) {
	t.Helper()
	must(t, n.network.kernel.Load().Tables.Translations(func(maps.Translation) { count++ }))
	return count
}

func addLoopbackAddress(t *testing.T, cidr string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	must(t, netlink.AddrAdd(lo, addr))
}
