package v1alpha1

import (
	"strings"
	"testing"
)

func TestTheNetworkOfABootConfiguration(t *testing.T) {
	for text, field := range map[string]string{
		"":                      "",
		"{address: 192.0.2.10}": "",
		"{address: 192.0.2.10/24, gateway: 192.0.2.1, vlan: 12, interface: eth1, dns: [192.0.2.3], ntp: [time.example.org, 192.0.2.4]}": "",
		"{address: 2001:db8::10/64, gateway: 'fe80::1'}": "",
		"{address: nonsense}":                            "network.address",
		"{address: 192.0.2.10/33}":                       "network.address",
		"{address: 192.0.2.10, gateway: 192.0.2.1}":      "network.gateway",
		"{address: 192.0.2.10/24, gateway: router}":      "network.gateway",
		"{vlan: 5000}":                                   "network.vlan",
		"{dns: [192.0.2.3, dns.example.org]}":            "network.dns[1]",
		"{ntp: ['not a name']}":                          "network.ntp[0]",
		"{gatewya: 192.0.2.10}":                          "network.gatewya",
	} {
		config := "apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\nrepository: {url: 'https://git.example.org/site.git', path: clusters/default}\ntrust: {none: true}\n"
		if text != "" {
			config += "network: " + text + "\n"
		}
		_, err := DecodeBootConfig("boot.yaml", []byte(config))
		if field == "" && err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if field != "" && (err == nil || !strings.Contains(err.Error(), field)) {
			t.Errorf("%s: %v does not name %s", text, err, field)
		}
	}
}
