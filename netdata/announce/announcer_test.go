package announce

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/bothy-os/bothy/netdata/elect"
)

var (
	testMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	testPool = netip.MustParsePrefix("192.0.2.0/24")
)

type fakeTable struct{ addrs []netip.Addr }

func (f *fakeTable) SetAnnounced(addrs []netip.Addr, mac net.HardwareAddr) error {
	f.addrs = slices.Clone(addrs)
	return nil
}

// world is a cluster as one of its nodes sees it.
type world struct {
	*Announcer
	table   *fakeTable
	factory informers.SharedInformerFactory
	slices  map[string][]*discoveryv1.EndpointSlice
}

func newWorld(t *testing.T, node string) *world {
	t.Helper()
	w := &world{table: &fakeTable{}, slices: map[string][]*discoveryv1.EndpointSlice{}}
	w.factory = informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	a, err := New(Config{
		Node: node, InPool: testPool.Contains, Log: slog.New(slog.DiscardHandler),
		Uplink: func() (Uplink, error) { return Uplink{1, testMAC}, nil },
		Slices: func(s string) ([]*discoveryv1.EndpointSlice, error) { return w.slices[s], nil },
	}, w.factory, w.table)
	if err != nil {
		t.Fatal(err)
	}
	w.Announcer = a
	return w
}

func (w *world) node(t *testing.T, name string, ready corev1.ConditionStatus) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	if err := w.factory.Core().V1().Nodes().Informer().GetStore().Add(n); err != nil {
		t.Fatal(err)
	}
}

func (w *world) service(t *testing.T, name string, policy corev1.ServiceExternalTrafficPolicy, ips ...string) {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, policy
	for _, ip := range ips {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	if err := w.factory.Core().V1().Services().Informer().GetStore().Add(s); err != nil {
		t.Fatal(err)
	}
}

func (w *world) endpoints(service string, nodes ...string) {
	s := &discoveryv1.EndpointSlice{}
	for _, n := range nodes {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, NodeName: &n})
	}
	w.slices["default/"+service] = []*discoveryv1.EndpointSlice{s}
}

func (w *world) announced(t *testing.T) []string {
	t.Helper()
	if _, _, err := w.pass(); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, a := range w.table.addrs {
		out = append(out, a.String())
	}
	return out
}

func TestEachAddressIsAnnouncedByOneReadyNode(t *testing.T) {
	nodes := []string{"a", "b", "c"}
	worlds := map[string]*world{}
	for _, name := range nodes {
		w := newWorld(t, name)
		for _, n := range nodes {
			w.node(t, n, corev1.ConditionTrue)
		}
		w.service(t, "x", corev1.ServiceExternalTrafficPolicyCluster, "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "203.0.113.1")
		worlds[name] = w
	}
	holder := map[string]string{}
	for name, w := range worlds {
		for _, a := range w.announced(t) {
			if other := holder[a]; other != "" {
				t.Errorf("%s is announced by %s and %s", a, other, name)
			}
			holder[a] = name
		}
	}
	if len(holder) != 4 {
		t.Errorf("announced: %v; want the four of the pool", holder)
	}
	lost := holder["192.0.2.1"]
	took := 0
	for name, w := range worlds {
		w.node(t, lost, corev1.ConditionUnknown)
		got := w.announced(t)
		if name == lost && len(got) != 0 {
			t.Errorf("a node that is not Ready announces %v", got)
		}
		if slices.Contains(got, "192.0.2.1") {
			took++
		}
		for a, n := range holder {
			if n == name && name != lost && !slices.Contains(got, a) {
				t.Errorf("%s moved from %s, which is Ready", a, name)
			}
		}
	}
	if took != 1 {
		t.Errorf("%d nodes took the address over, want one", took)
	}
}

func TestLocalPolicyIsForNodesWithEndpoints(t *testing.T) {
	w := newWorld(t, "a")
	w.node(t, "a", corev1.ConditionTrue)
	w.node(t, "b", corev1.ConditionTrue)
	w.service(t, "x", corev1.ServiceExternalTrafficPolicyLocal, "192.0.2.1")
	for _, tc := range []struct {
		endpoints []string
		want      []string
	}{{nil, []string{}}, {[]string{"b"}, []string{}}, {[]string{"a"}, []string{"192.0.2.1"}}} {
		w.endpoints("x", tc.endpoints...)
		if diff := cmp.Diff(tc.want, w.announced(t)); diff != "" {
			t.Errorf("endpoints on %v: %s", tc.endpoints, diff)
		}
	}
	if !w.matters(&discoveryv1.EndpointSlice{}) {
		t.Error("endpoints are not followed while a Service depends on them")
	}
}

func TestOnlyNewAddressesAreTold(t *testing.T) {
	w := newWorld(t, "a")
	w.node(t, "a", corev1.ConditionTrue)
	w.service(t, "x", corev1.ServiceExternalTrafficPolicyCluster, "192.0.2.1")
	_, fresh, err := w.pass()
	if err != nil || len(fresh) != 1 {
		t.Fatalf("first: %v, %v", fresh, err)
	}
	w.service(t, "y", corev1.ServiceExternalTrafficPolicyCluster, "192.0.2.2")
	if _, fresh, err = w.pass(); err != nil || len(fresh) != 1 || fresh[0] != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("second: %v, %v", fresh, err)
	}
}

func TestNodesThatTakeNoPart(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if got := elect.Candidates([]*corev1.Node{n}); len(got) != 0 {
		t.Errorf("candidates %v", got)
	}
}

func TestGratuitousFrames(t *testing.T) {
	arp := gratuitous(netip.MustParseAddr("192.0.2.1"), testMAC)
	want := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, testMAC, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
		testMAC, []byte{192, 0, 2, 1}, make([]byte, 6), []byte{192, 0, 2, 1})
	if !slices.Equal(arp, want) {
		t.Errorf("ARP frame\n%x, want\n%x", arp, want)
	}
	ndp := gratuitous(netip.MustParseAddr("2001:db8::1"), testMAC)
	if len(ndp) != 14+40+32 || ndp[54] != 136 || ndp[21] != 255 {
		t.Fatalf("frame %x", ndp)
	}
	pseudo := slices.Concat(ndp[22:54], []byte{0, 0, 0, 32, 0, 0, 0, 58})
	if checksum(slices.Concat(pseudo, ndp[54:])) != 0 {
		t.Error("checksum is wrong")
	}
	if !slices.Equal(ndp[80:], testMAC) {
		t.Errorf("target hardware address %x", ndp[80:])
	}
}
