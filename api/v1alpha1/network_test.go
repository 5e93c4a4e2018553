package v1alpha1

import (
	"slices"
	"strings"
	"testing"
)

func TestRangesByDefault(t *testing.T) {
	for _, tc := range []struct {
		name               string
		spec               string
		pods, service, dns string
	}{
		{"nothing said", "{}", "10.244.0.0/16 fd62:6f74:6879:f400::/56", "10.96.0.0/16 fd62:6f74:6879:6000::/112", "10.96.0.10 fd62:6f74:6879:6000::a"},
		{"IPv4 pods", "{podCIDRs: [10.1.0.0/16]}", "10.1.0.0/16", "10.96.0.0/16", "10.96.0.10"},
		{"IPv6 pods", `{podCIDRs: ["fd00::/56"]}`, "fd00::/56", "fd62:6f74:6879:6000::/112", "fd62:6f74:6879:6000::a"},
		{
			"IPv6 first", `{serviceCIDRs: ["fd00:96::/108", 10.96.0.0/12]}`,
			"fd62:6f74:6879:f400::/56 10.244.0.0/16", "fd00:96::/108 10.96.0.0/12", "fd00:96::a 10.96.0.10",
		},
		{"DNS elsewhere", `{dns: {address: 10.96.0.53}}`, "10.244.0.0/16 fd62:6f74:6879:f400::/56", "10.96.0.0/16 fd62:6f74:6879:6000::/112", "10.96.0.53 fd62:6f74:6879:6000::a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := DecodeCluster("c.yaml", []byte(clusterHead+"spec: {network: "+tc.spec+"}\n"))
			if err != nil {
				t.Fatal(err)
			}
			n := c.Spec.Network
			for _, x := range []struct {
				what, want string
				got        []string
			}{{"pods", tc.pods, n.PodCIDRs}, {"services", tc.service, n.ServiceCIDRs}, {"DNS", tc.dns, n.DNSAddresses()}} {
				if !slices.Equal(x.got, strings.Fields(x.want)) {
					t.Errorf("%s: %v, want %s", x.what, x.got, x.want)
				}
			}
		})
	}
}

func TestUselessRangesAreRefused(t *testing.T) {
	for spec, want := range map[string]string{
		`{podCIDRs: [10.1.0.0/16, 10.2.0.0/16]}`:                                            "spec.network.podCIDRs[1]: a second range of the same family",
		`{podCIDRs: ["fd00::/56", "fd01::/56"]}`:                                            "spec.network.podCIDRs[1]: a second range of the same family",
		`{podCIDRs: ["fd00::/40"]}`:                                                         "spec.network.podCIDRs[0]: /40 is not usable here",
		`{podCIDRs: ["fd00::/80"]}`:                                                         "spec.network.podCIDRs[0]: /80 is not usable here",
		`{serviceCIDRs: ["fd00::/64"]}`:                                                     "spec.network.serviceCIDRs[0]: /64 is not usable here",
		`{podCIDRs: ["::ffff:10.1.0.0/112"]}`:                                               "spec.network.podCIDRs[0]: \"::ffff:10.1.0.0/112\" is neither",
		`{podCIDRs: [10.1.0.0/16], serviceCIDRs: ["fd00:96::/112"]}`:                        "spec.network.serviceCIDRs: [fd00:96::/112] do not have the address families",
		`{podCIDRs: [10.1.0.0/16, "fd00::/56"], serviceCIDRs: ["fd01::/112", 10.2.0.0/16]}`: "spec.network.serviceCIDRs: [fd01::/112 10.2.0.0/16] do not have the address families",
		`{podCIDRs: ["fd00::/56"], serviceCIDRs: ["fd00::6000/112"]}`:                       "spec.network.serviceCIDRs[0]: \"fd00::6000/112\" has bits set",
		`{podCIDRs: ["fd00::/56"], serviceCIDRs: ["fd00::/112"]}`:                           "spec.network.serviceCIDRs[0]: fd00::/112 overlaps the pod range fd00::/56",
		`{encapsulation: Never}`:                                                            "spec.network.encapsulation: ",
		`{dns: {address: "fd62:6f74:6879:6000::53"}}`:                                       "spec.network.dns.address: \"fd62:6f74:6879:6000::53\" is not an address in the service range 10.96.0.0/16",
	} {
		_, err := DecodeCluster("c.yaml", []byte(clusterHead+"spec: {network: "+spec+"}\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", spec, err, want)
		}
	}
}
