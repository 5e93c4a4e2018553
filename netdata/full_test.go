package netdata

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/netdata/maps"
)

// TestConntrackFull opens four times as many flows as there is room for. Every new one
// finds its way; a connection in use is not the one that has to make room; what lost its
// row gets an answer and not silence; and afterwards everything works as before.
func TestConntrackFull(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	const room, flows = 1024, 4096
	n := newTestNode(t)
	n.cfg.flows = room
	plugin := buildPlugin(t, n.dir)
	api := newFakeAPI(t)
	api.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.7.0/24", "fd00:244:7::/64"}}})
	api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	api.kubeconfig(n.dir)
	n.start("cni", "services")
	a, b := n.pod(plugin, "a"), n.pod(plugin, "b")
	echoTCP(t, b.ns, ":8080", b.name)
	echoUDP(t, b.ns, ":8080", b.name)
	const web = "10.96.0.20:80"
	api.put(service("web", "10.96.0.20", 0, 80, 8080))
	api.put(slice("web", 8080, b))
	wait(t, "the service to answer", func() error { _, _, err := ask(t, a.ns, "tcp4", web); return err })

	used, err := dial(t, a.ns, "tcp4", web)
	must(t, err)
	defer used.Close()
	idle, err := dial(t, a.ns, "tcp4", web)
	must(t, err)
	defer idle.Close()
	sayTo(t, idle, "b")

	for i := range flows {
		if server, _, err := ask(t, a.ns, "udp4", web); err != nil || server != "b" {
			t.Fatalf("flow %d of %d was answered by %q: %v", i+1, flows, server, err)
		}
		if i%8 == 0 {
			sayTo(t, used, "b")
		}
	}
	if got := rowsOf(t, n.network); got > room {
		t.Errorf("conntrack has %d rows, more than its %d", got, room)
	} else if got < room/2 {
		t.Errorf("conntrack has only %d of %d rows: the test did not fill it", got, room)
	}
	sayTo(t, used, "b")
	if _, err := say(idle, "still there?"); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that was not used got %v: want an answer or a reset, not silence", err)
	}
	for _, proto := range []string{"tcp4", "udp4"} {
		expect(t, a.ns, proto, web, "b", a.addr.String())
	}
}

func rowsOf(t *testing.T, n *Network) int {
	t.Helper()
	rows := 0
	must(t, n.kernel.Load().Tables.Flows(func(maps.Flow) { rows++ }))
	return rows
}

// TestPoolExhausted gives out every address of a small range. The pod that comes too late
// hears why and what to do, and leaves nothing; when another has gone, there is room again.
func TestPoolExhausted(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	plugin := buildPlugin(t, n.dir)
	api := newFakeAPI(t)
	api.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.7.0/29", "fd00:244:7::/64"}}})
	api.kubeconfig(n.dir)
	n.start("cni")
	var pods []pod
	var refusal error
	for i := 0; refusal == nil; i++ {
		if i > 8 {
			t.Fatalf("%d pods got addresses of a range of 8", i)
		}
		name := fmt.Sprintf("p%d", i)
		ns := n.makeNetns(name)
		if _, refusal = n.cni(plugin, "ADD", "container-"+name, ns); refusal == nil {
			pods = append(pods, pod{name: name, ns: ns})
		}
	}
	expectText(t, refusal, "10.244.7.0/29", "larger range")
	if len(pods) < 4 {
		t.Errorf("only %d pods got an address of a range of 8", len(pods))
	}
	if s := n.network.Status(); s.Pods != len(pods) {
		t.Errorf("%d pods are known, want %d: the refused one left rows", s.Pods, len(pods))
	}
	if got := podDevs(t); got != len(pods) {
		t.Errorf("there are %d pod interfaces, want %d: the refused one left its own", got, len(pods))
	}
	n.del(plugin, pods[0])
	n.pod(plugin, "late")
}

// podDevs counts the node's interfaces besides its own.
func podDevs(t *testing.T) int {
	t.Helper()
	links, err := net.Interfaces()
	must(t, err)
	count := 0
	for _, l := range links {
		if l.Name != "lo" && l.Name != "eth0" {
			count++
		}
	}
	return count
}
