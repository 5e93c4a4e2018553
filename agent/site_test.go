package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

const clusterText = "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata: {name: x}\nspec: {node: {maxPods: 50}}\n"

func TestSiteWithoutFilesHasDefaults(t *testing.T) {
	s, err := decodeSite(&reconciler.Snapshot{}, "clusters/edge", "node1")
	if err != nil {
		t.Fatal(err)
	}
	if s.cluster.Metadata.Name != "edge" || s.cluster.Spec.Node.MaxPods != 110 || s.machine.Spec.Role != "control-plane" {
		t.Errorf("%+v %+v", s.cluster, s.machine)
	}
}

func TestSiteTakesItsOwnMachine(t *testing.T) {
	machine := func(name string) reconciler.File {
		return reconciler.File{Path: "m/" + name + ".yaml", Data: []byte("apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: " + name + "}\nspec: {labels: {of: " + name + "}}\n")}
	}
	snap := &reconciler.Snapshot{
		Cluster:  &reconciler.File{Path: "c.yaml", Data: []byte(clusterText)},
		Machines: []reconciler.File{machine("a"), machine("b")},
	}
	s, err := decodeSite(snap, "clusters/edge", "b")
	if err != nil || s.cluster.Spec.Node.MaxPods != 50 || s.machine.Spec.Labels["of"] != "b" {
		t.Errorf("%+v %v", s, err)
	}
	same, _ := decodeSite(snap, "clusters/edge", "b")
	other, _ := decodeSite(snap, "clusters/edge", "a")
	if !s.equal(same) || s.equal(other) || s.equal(nil) {
		t.Error("sites are compared wrongly")
	}
}

func TestFaultySiteNamesEveryFile(t *testing.T) {
	_, err := decodeSite(&reconciler.Snapshot{
		Cluster:  &reconciler.File{Path: "c.yaml", Data: []byte(clusterText + "extra: 1\n")},
		Machines: []reconciler.File{{Path: "m.yaml", Data: []byte("kind: [")}},
	}, "clusters/edge", "a")
	if err == nil || !strings.Contains(err.Error(), "c.yaml:5: extra") || !strings.Contains(err.Error(), "m.yaml:1") {
		t.Errorf("%v", err)
	}
}

func TestNetworkCannotBeRenumbered(t *testing.T) {
	now, next := v1alpha1.NewCluster("x"), v1alpha1.NewCluster("x")
	next.Spec.Node.MaxPods = 7
	if err := keepsNetwork(now, next); err != nil {
		t.Errorf("other settings: %v", err)
	}
	next.Spec.Network.ServiceCIDRs = []string{"10.97.0.0/16"}
	if err := keepsNetwork(now, next); err == nil || !strings.Contains(err.Error(), "spec.network.serviceCIDRs") {
		t.Errorf("service range: %v", err)
	}
}

func TestUpstreams(t *testing.T) {
	resolv := "search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53")}
	if got := upstreams(nil, resolv); !slices.Equal(got, want) {
		t.Errorf("from resolv.conf: %v", got)
	}
	want = []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:5353")}
	if got := upstreams([]string{"198.51.100.1:5353"}, resolv); !slices.Equal(got, want) {
		t.Errorf("configured: %v", got)
	}
}

func TestNodeTakesPartWithTheAddressesItHas(t *testing.T) {
	ranges := func(cidrs ...string) []netip.Prefix {
		out, err := parsePrefixes(cidrs)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	both := &boot.Environment{Address: "192.0.2.1", Address6: "2001:db8::1"}
	four := &boot.Environment{Address: "192.0.2.1"}
	for _, tc := range []struct {
		name string
		env  *boot.Environment
		pods []netip.Prefix
		want string
	}{
		{"both", both, ranges("10.244.0.0/16", "fd00::/56"), "[192.0.2.1 2001:db8::1]"},
		{"IPv6 first", both, ranges("fd00::/56", "10.244.0.0/16"), "[2001:db8::1 192.0.2.1]"},
		{"cluster of one family", both, ranges("10.244.0.0/16"), "[192.0.2.1]"},
		{"machine of one family", four, ranges("10.244.0.0/16", "fd00::/56"), "[192.0.2.1]"},
		{"nothing in common", four, ranges("fd00::/56"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := nodeAddresses(tc.env, tc.pods)
			if tc.want == "" {
				if err == nil || !strings.Contains(err.Error(), "spec.network.podCIDRs") {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if fmt.Sprint(got) != tc.want || err != nil {
				t.Errorf("got %v, %v, want %s", got, err, tc.want)
			}
		})
	}
	if got := fmt.Sprint(firstNodeRanges(ranges("10.244.0.0/16", "fd00::/56"))); got != "[10.244.0.0/24 fd00::/64]" {
		t.Errorf("ranges of the first node: %s", got)
	}
	if got := fmt.Sprint(firstNodeRanges(ranges("10.1.2.0/24"))); got != "[10.1.2.0/24]" {
		t.Errorf("ranges of the only node: %s", got)
	}
	if got := fmt.Sprint(firstNodeRanges(ranges("10.244.0.0/26"))); got != "[10.244.0.0/26]" {
		t.Errorf("ranges of the first node: %s", got)
	}
}
