package v1alpha1

import (
	"strings"
	"testing"
)

func TestLoadBalancerPools(t *testing.T) {
	const head = "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata: {name: a}\nspec:\n  network:\n"
	decode := func(network string) (*Cluster, error) {
		return DecodeCluster("cluster.yaml", []byte(head+network))
	}
	c, err := decode(`    nonMasqueradeCIDRs: [192.168.0.0/16]
    loadBalancer:
      pools:
      - name: site
        addresses: [192.168.1.200-192.168.1.220, 192.168.2.7, "2001:db8::/120"]
      - {name: mail, addresses: [192.168.3.0/28], autoAssign: false, namespaces: [mail], serviceLabels: {tier: edge}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Spec.Network.LoadBalancer.Pools; len(got) != 2 || got[1].AutoAssign == nil || *got[1].AutoAssign {
		t.Errorf("pools %+v", got)
	}
	for network, want := range map[string]string{
		"    nonMasqueradeCIDRs: [10.0.0.0]\n":                                                                    "cluster.yaml:6: spec.network.nonMasqueradeCIDRs[0]: \"10.0.0.0\" is not an address range",
		"    spliceNamespaces: [a/b]\n":                                                                           "cluster.yaml:6: spec.network.spliceNamespaces[0]: \"a/b\" is not the name of a namespace",
		"    loadBalancer: {pools: [{name: a, addresses: [10.244.3.0/24]}]}\n":                                    "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: 10.244.3.0/24 overlaps the pod range 10.244.0.0/16",
		"    loadBalancer: {pools: [{name: a, addresses: [10.95.0.0-10.96.0.0]}]}\n":                              "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: 10.95.0.0-10.96.0.0 overlaps the service range",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.9-1.1.1.1]}]}\n":                                  "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: \"1.1.1.9-1.1.1.1\" does not go",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1/24]}]}\n":                                       "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: \"1.1.1.1/24\" has address bits",
		"    loadBalancer: {pools: [{name: a, addresses: [224.0.0.7]}]}\n":                                        "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: \"224.0.0.7\" has addresses that no Service",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1-fd00::1]}]}\n":                                  "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses[0]: \"1.1.1.1-fd00::1\" does not go",
		"    loadBalancer: {pools: [{name: a, addresses: []}]}\n":                                                 "cluster.yaml:6: spec.network.loadBalancer.pools[0].addresses: is empty",
		"    loadBalancer: {pools: [{name: A_b, addresses: [1.1.1.1]}]}\n":                                        "cluster.yaml:6: spec.network.loadBalancer.pools[0].name: \"A_b\" is not a valid name",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1]}, {name: a, addresses: [1.1.1.2]}]}\n":         "cluster.yaml:6: spec.network.loadBalancer.pools[1].name: \"a\" is the name of another pool",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1]}, {name: b, addresses: [1.1.1.0-1.1.1.2]}]}\n": "cluster.yaml:6: spec.network.loadBalancer.pools[1].addresses[0]: 1.1.1.0-1.1.1.2 overlaps 1.1.1.1 of pool \"a\"",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1], namespaces: [a/b]}]}\n":                       "cluster.yaml:6: spec.network.loadBalancer.pools[0].namespaces[0]: \"a/b\" is not the name of a namespace",
		"    loadBalancer: {pools: [{name: a, addresses: [1.1.1.1], size: 3}]}\n":                                 "cluster.yaml:6: spec.network.loadBalancer.pools[0].size: unknown field",
	} {
		if _, err := decode(network); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", network, err, want)
		}
	}
}

func TestPrefixesOfARange(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7":                 "192.0.2.7/32",
		"192.0.2.0/24":              "192.0.2.0/24",
		"192.0.2.1-192.0.2.6":       "192.0.2.1/32 192.0.2.2/31 192.0.2.4/31 192.0.2.6/32",
		"0.0.0.0-255.255.255.255":   "0.0.0.0/0",
		"255.255.255.254/31":        "255.255.255.254/31",
		"2001:db8::1-2001:db8::100": "2001:db8::1/128 2001:db8::2/127 2001:db8::4/126 2001:db8::8/125 2001:db8::10/124 2001:db8::20/123 2001:db8::40/122 2001:db8::80/121 2001:db8::100/128",
	} {
		r, err := ParseAddressRange(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range r.Prefixes() {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", text, got, want)
		}
	}
}
