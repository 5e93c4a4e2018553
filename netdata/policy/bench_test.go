package policy

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// BenchmarkCompile is a node with 100 pods in a cluster of 10 000, in 200 namespaces of which each has
// a policy that closes it and one that opens it to itself and to one other.
func BenchmarkCompile(b *testing.B) {
	w := &World{Node: "here", Pods: map[string]*Pod{}, Namespaces: map[string]labels.Set{}, Policies: map[string]*Policy{}, Local: map[netip.Addr]*Pod{}}
	for i := range 10000 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprint("p", i), Namespace: fmt.Sprint("ns", i%200), Labels: map[string]string{"app": fmt.Sprint("app", i%40)},
		}}
		p.Spec.NodeName = map[bool]string{true: "here", false: "there"}[i < 100]
		p.Status.PodIPs = []corev1.PodIP{{IP: netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)}).String()}}
		pod := NewPod(p)
		w.Pods[p.Namespace+"/"+p.Name] = pod
		if i < 100 {
			w.Local[pod.Addrs[0]] = pod
		}
	}
	for i := range 200 {
		ns := fmt.Sprint("ns", i)
		w.Namespaces[ns] = labels.Set{"name": ns}
		for _, p := range []*networkingv1.NetworkPolicy{{}, {Spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{}},
				{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": fmt.Sprint("ns", (i+1)%200)}}},
			}}},
		}}} {
			p.Namespace, p.Name = ns, fmt.Sprint("np", len(w.Policies))
			w.Policies[ns+"/"+p.Name] = NewPolicy(p)
		}
	}
	writer, err := NewWriter(newFakeTable())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		plan, err := Compile(w, writer.Numbers)
		if err != nil {
			b.Fatal(err)
		}
		if len(plan.Peers) == 0 || len(plan.Rules) == 0 {
			b.Fatal("an empty plan")
		}
		b.ReportMetric(float64(len(plan.Peers)), "peers")
		b.ReportMetric(float64(len(plan.Rules)), "rules")
	}
}
