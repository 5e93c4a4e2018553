package nodes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name, addrs, pods string) Node {
	n := Node{Name: name}
	for _, a := range strings.Fields(addrs) {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(a))
	}
	for _, p := range strings.Fields(pods) {
		n.Pods = append(n.Pods, netip.MustParsePrefix(p))
	}
	return n
}

func TestPlan(t *testing.T) {
	self := node("a", "192.0.2.1 2001:db8::1", "10.244.0.0/24 fd00:0:0:1::/64")
	onLink := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	for _, tc := range []struct {
		name     string
		all      []Node
		want     []string
		problems string
	}{
		{"alone", []Node{self}, nil, ""},
		{
			"same link",
			[]Node{self, node("b", "192.0.2.2 2001:db8::2", "10.244.1.0/24 fd00:0:0:2::/64")},
			[]string{"10.244.1.0/24 via 192.0.2.2", "fd00:0:0:2::/64 via 2001:db8::2"},
			"",
		},
		{
			"elsewhere",
			[]Node{self, node("b", "198.51.100.2 2001:db8:1::2", "10.244.1.0/24 fd00:0:0:2::/64")},
			[]string{"10.244.1.0/24 through a tunnel to 198.51.100.2", "fd00:0:0:2::/64 through a tunnel to 198.51.100.2"},
			"",
		},
		{
			"IPv6 first",
			[]Node{self, node("b", "2001:db8:1::2 198.51.100.2", "10.244.1.0/24")},
			[]string{"10.244.1.0/24 through a tunnel to 2001:db8:1::2"},
			"",
		},
		{"peer of one family", []Node{self, node("b", "192.0.2.2", "10.244.1.0/24 fd00:0:0:2::/64")}, []string{"10.244.1.0/24 via 192.0.2.2"}, ""},
		{"not registered yet", []Node{self, node("b", "", "10.244.1.0/24"), node("c", "192.0.2.3", "")}, nil, ""},
		{
			"claims our range",
			[]Node{self, node("b", "192.0.2.2", "10.244.0.0/24")},
			nil,
			"node b: pod range 10.244.0.0/24 is that of node a, or overlaps it",
		},
		{
			"claims another's range",
			[]Node{node("c", "192.0.2.3", "10.244.1.128/25"), node("b", "192.0.2.2", "10.244.1.0/24")},
			[]string{"10.244.1.0/24 via 192.0.2.2"},
			"node c: pod range 10.244.1.128/25 is that of node b, or overlaps it",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			routes, problems := Plan(self, onLink, tc.all)
			var got []string
			for _, r := range routes {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			var text string
			for _, p := range problems {
				text += p.Error()
			}
			if text != tc.problems {
				t.Errorf("problems %q, want %q", text, tc.problems)
			}
		})
	}
}

func TestFromObject(t *testing.T) {
	got := FromObject(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:0:0:2::/64", "nonsense"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "b"},
			{Type: corev1.NodeExternalIP, Address: "203.0.113.9"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.2"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::2"},
		}},
	})
	if want := node("b", "192.0.2.2 2001:db8::2", "10.244.1.0/24 fd00:0:0:2::/64"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
