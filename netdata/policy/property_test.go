package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// TestRandomWorlds changes a world object by object and asks after each change about
// hundreds of packets: the tables must say what the API's words say; while a change is made, neither end
// of a packet may allow what it allows neither before nor after; and what was allowed and is no longer must have
// raised the revision.
func TestRandomWorlds(t *testing.T) {
	worlds, steps := 40, 40
	if testing.Short() {
		worlds = 6
	}
	for seed := range worlds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newRandomWorld(t, uint64(seed))
			for step := range steps {
				w.change()
				w.verify(step)
			}
		})
	}
}

type randomWorld struct {
	naive
	t      *testing.T
	r      *rand.Rand
	table  *fakeTable
	writer *Writer
	asked  []packet
	before map[packet]bool
	// what either end says, before and after a change
	ends [2]map[packet][2]bool
}

func newRandomWorld(t *testing.T, seed uint64) *randomWorld {
	w := &randomWorld{t: t, r: rand.New(rand.NewPCG(seed, 1)), table: newFakeTable(), before: map[packet]bool{}}
	w.node, w.pods, w.namespaces, w.policies = "here", map[string]*corev1.Pod{}, map[string]*corev1.Namespace{}, map[string]*networkingv1.NetworkPolicy{}
	for i := range 3 {
		name := fmt.Sprintf("ns%d", i)
		w.namespaces[name] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: w.labels()}}
	}
	for i := range 10 {
		w.putPod(i)
	}
	var err error
	if w.writer, err = NewWriter(w.table); err != nil {
		t.Fatal(err)
	}
	return w
}

// The universe is small, so that things meet.
func (w *randomWorld) labels() map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if v := w.r.IntN(3); v > 0 {
			out[k] = fmt.Sprint(v)
		}
	}
	return out
}

func (w *randomWorld) putPod(i int) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), Namespace: fmt.Sprintf("ns%d", i%3), Labels: w.labels()}}
	p.Spec.NodeName = [2]string{"here", "there"}[i%2]
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%d", i%2, i)}, {IP: fmt.Sprintf("fd00::%d:%d", i%2, i)}}
	p.Spec.Containers = []corev1.Container{{}}
	for _, name := range []string{"web", "dns"} {
		if n := w.r.IntN(4); n > 0 {
			proto := [2]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}[w.r.IntN(2)]
			p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{Name: name, Protocol: proto, ContainerPort: int32(80 + n)})
		}
	}
	w.pods[p.Namespace+"/"+p.Name] = p
}

func (w *randomWorld) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch w.r.IntN(4) {
	case 0:
	case 1:
		s.MatchLabels = map[string]string{"app": fmt.Sprint(1 + w.r.IntN(2))}
	case 2:
		op := []metav1.LabelSelectorOperator{metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn}[w.r.IntN(2)]
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: op, Values: []string{"1"}}}
	case 3:
		op := []metav1.LabelSelectorOperator{metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist}[w.r.IntN(2)]
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: op}}
	}
	return s
}

func (w *randomWorld) peers() (out []networkingv1.NetworkPolicyPeer) {
	blocks := [][]string{
		{"0.0.0.0/0"},
		{"0.0.0.0/0", "10.0.0.0/24"},
		{"10.0.0.0/16", "10.0.1.0/29", "10.0.1.3/32"},
		{"10.0.1.1/32"},
		{"192.0.2.0/24"},
		{"::/0", "fd00::/64"},
		{"fd00::/112", "fd00::4/128"},
		{"10.0.0.0/23", "10.0.0.0/30"},
	}
	for range w.r.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		switch w.r.IntN(4) {
		case 0:
			b := blocks[w.r.IntN(len(blocks))]
			p.IPBlock = &networkingv1.IPBlock{CIDR: b[0], Except: b[1:]}
		case 1:
			p.PodSelector = w.selector()
		case 2:
			p.NamespaceSelector = w.selector()
		case 3:
			p.PodSelector, p.NamespaceSelector = w.selector(), w.selector()
		}
		out = append(out, p)
	}
	return out
}

func (w *randomWorld) ports() (out []networkingv1.NetworkPolicyPort) {
	for range w.r.IntN(3) {
		proto := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}[w.r.IntN(3)]
		p := networkingv1.NetworkPolicyPort{Protocol: &proto}
		first := intstr.FromInt32(int32(78 + w.r.IntN(6)))
		switch w.r.IntN(4) {
		case 0:
		case 1:
			p.Port = &first
		case 2:
			last := first.IntVal + int32(w.r.IntN(9))
			p.Port, p.EndPort = &first, &last
		case 3:
			name := intstr.FromString([2]string{"web", "dns"}[w.r.IntN(2)])
			p.Port = &name
		}
		out = append(out, p)
	}
	return out
}

func (w *randomWorld) policy(name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: fmt.Sprintf("ns%d", w.r.IntN(3))}}
	p.Spec.PodSelector = *w.selector()
	if w.r.IntN(3) > 0 {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	}
	if w.r.IntN(3) > 0 || len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
	for range w.r.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
	}
	for range w.r.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return p
}

// change makes one change to one object.
func (w *randomWorld) change() {
	switch w.r.IntN(8) {
	case 0:
		w.putPod(w.r.IntN(10))
	case 1:
		i := w.r.IntN(10)
		delete(w.pods, fmt.Sprintf("ns%d/p%d", i%3, i))
	case 2:
		w.namespaces[fmt.Sprintf("ns%d", w.r.IntN(3))].Labels = w.labels()
	case 3:
		for key := range w.policies {
			delete(w.policies, key)
			break
		}
	case 4: // the same policy with other words
		for key, p := range w.policies {
			changed := w.policy(p.Name)
			changed.Namespace, changed.Spec.PodSelector = p.Namespace, p.Spec.PodSelector
			w.policies[key] = changed
			break
		}
	default:
		p := w.policy(fmt.Sprintf("np%d", w.r.IntN(4)))
		w.policies[p.Namespace+"/"+p.Name] = p
	}
}

func (w *randomWorld) world() *World {
	out := &World{Node: w.node, Pods: map[string]*Pod{}, Namespaces: map[string]labels.Set{}, Policies: map[string]*Policy{}, Local: map[netip.Addr]*Pod{}}
	for key, p := range w.pods {
		pod := NewPod(p)
		out.Pods[key] = pod
		if p.Spec.NodeName == w.node {
			for _, a := range pod.Addrs {
				out.Local[a] = pod
			}
		}
	}
	for name, ns := range w.namespaces {
		out.Namespaces[name] = ns.Labels
	}
	for key, p := range w.policies {
		out.Policies[key] = NewPolicy(p)
		if problems := out.Policies[key].Problems; len(problems) > 0 {
			w.t.Fatalf("%s: %v", key, problems)
		}
	}
	return out
}

// connect has the node's pods be what the world says, as CNI does: a new one gets its
// identity when the plan is in force.
func (w *randomWorld) connect(world *World) {
	for a := range w.table.identities {
		if world.Local[a] == nil {
			delete(w.table.identities, a)
			w.writer.Disconnected(a)
		}
	}
}

func (w *randomWorld) verify(step int) {
	w.t.Helper()
	world := w.world()
	plan, err := Compile(world, w.writer.Numbers)
	if err != nil {
		w.t.Fatal(err)
	}
	w.connect(world)
	connected := map[netip.Addr]bool{}
	for a := range w.table.identities {
		connected[a] = true
	}
	w.choosePackets()
	after := map[packet]bool{}
	w.ends = [2]map[packet][2]bool{{}, {}}
	for _, p := range w.asked {
		w.before[p] = w.table.allowed(p)
		after[p] = w.naive.allowed(p)
		w.ends[0][p] = w.table.ends(p)
		from, to := w.owner(p.from), w.owner(p.to)
		w.ends[1][p] = [2]bool{
			w.passes(from, networkingv1.PolicyTypeEgress, p.to, to, p), w.passes(to, networkingv1.PolicyTypeIngress, p.from, from, p),
		}
	}
	w.table.check = func(what string) {
		for _, p := range w.asked {
			for end, allows := range w.table.ends(p) {
				if allows && !w.ends[0][p][end] && !w.ends[1][p][end] {
					w.t.Errorf("step %d, before a %s: end %d of %s allows what it does neither before nor after", step, what, end, p)
				}
			}
		}
	}
	revision := w.table.revision
	if _, err := w.writer.Apply(plan); err != nil {
		w.t.Fatal(err)
	}
	for a := range world.Local {
		if !connected[a] {
			w.table.identities[a] = plan.Identities[a]
			w.writer.Connected(a, plan.Identities[a])
		}
	}
	w.table.check = func(string) {}
	// A pod that came or went has no flow that could be judged again.
	stays := func(a netip.Addr) bool { return connected[a] == (world.Local[a] != nil) }
	for _, stage := range []string{"applied", "reaped"} {
		for _, p := range w.asked {
			if got := w.table.allowed(p); got != after[p] {
				w.t.Fatalf("step %d, %s: %s is allowed: %v, the API says %v\n%s", step, stage, p, got, after[p], w.table.dump())
			}
			t := tables.Tuple{Src: netip.AddrPortFrom(p.from, 40000), Dst: netip.AddrPortFrom(p.to, p.port), Proto: p.proto}
			if got := plan.Allows(t); got != after[p] {
				w.t.Fatalf("step %d: the plan itself says of %s: %v, the API %v\n%s", step, p, got, after[p], w.table.dump())
			}
			if w.before[p] && !after[p] && stays(p.from) && stays(p.to) && w.table.revision == revision {
				w.t.Errorf("step %d: %s was revoked, but the revision is what it was", step, p)
			}
		}
		if err := w.writer.Reap(); err != nil {
			w.t.Fatal(err)
		}
	}
	writes := w.table.writes
	if garbage, err := w.writer.Apply(plan); err != nil || garbage || w.table.writes != writes {
		w.t.Errorf("step %d: the same again wrote %d rows, garbage %v, error %v", step, w.table.writes-writes, garbage, err)
	}
	if len(w.table.rules) != len(plan.Rules) || len(w.table.peers) != len(plan.Peers) {
		w.t.Errorf("step %d: %d rules and %d peers are in the tables, the plan has %d and %d",
			step, len(w.table.rules), len(w.table.peers), len(plan.Rules), len(plan.Peers))
	}
}

func (w *randomWorld) choosePackets() {
	w.asked = w.asked[:0]
	var four, six []netip.Addr
	for i := range 10 {
		four = append(four, netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i%2, i)))
		six = append(six, netip.MustParseAddr(fmt.Sprintf("fd00::%d:%d", i%2, i)))
	}
	four = append(four, netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("10.0.1.200"), netip.MustParseAddr("10.0.0.200"))
	six = append(six, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00::200"))
	for range 200 {
		addrs := four
		if w.r.IntN(3) == 0 {
			addrs = six
		}
		w.asked = append(w.asked, packet{
			from: addrs[w.r.IntN(len(addrs))], to: addrs[w.r.IntN(len(addrs))],
			proto: []tables.Protocol{tables.TCP, tables.UDP, tables.SCTP}[w.r.IntN(3)], port: uint16(77 + w.r.IntN(15)),
		})
	}
}
