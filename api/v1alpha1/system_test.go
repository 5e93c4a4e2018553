package v1alpha1

import (
	"reflect"
	"strings"
	"testing"
)

const machineHead = "apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: site}\nspec:\n  system:\n"

func TestSystemOfAMachine(t *testing.T) {
	m, err := DecodeMachine("site.yaml", []byte(machineHead+`    hostname: shelf
    sysctls: {net.ipv4.tcp_keepalive_time: "300", net/ipv4/conf/eth0.12/rp_filter: "2"}
    modules: [wireguard]
    kernelArguments: [hugepages=64, mitigations=auto]
    dns: [192.0.2.3]
    interfaces:
    - {name: eth0, uplink: true, addresses: [192.0.2.10/24], gateway: 192.0.2.1}
    - {name: "52:54:00:12:34:56", vlan: 12, addresses: [198.51.100.1/24], mtu: 9000, routes: [{to: 203.0.113.0/24, via: 198.51.100.2}]}
    disks:
    - {name: archive, serial: S3R1AL}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := DecodeCluster("cluster.yaml", []byte(clusterHead+"spec:\n  system:\n    sysctls: {net/ipv4/tcp_keepalive_time: \"60\", vm.swappiness: \"10\"}\n    modules: [nbd, wireguard]\n    dns: [192.0.2.9]\n    ntp: [ntp.example.org]\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := System(c, m)
	want := map[string]string{"net/ipv4/tcp_keepalive_time": "300", "net/ipv4/conf/eth0.12/rp_filter": "2", "vm/swappiness": "10"}
	if !reflect.DeepEqual(got.Sysctls, want) {
		t.Errorf("sysctls %v", got.Sysctls)
	}
	if got.Hostname != "shelf" || !reflect.DeepEqual(got.Modules, []string{"nbd", "wireguard"}) || got.DNS[0] != "192.0.2.3" || got.NTP[0] != "ntp.example.org" || got.RevertAfter.Duration != defaultRevertAfter {
		t.Errorf("%+v", got)
	}
}

func TestBadSystems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"number", "    sysctls: {vm.swappiness: 10}\n", `m.yaml:6: spec.system.sysctls.vm.swappiness: must be a string, not the number 10; put it in quotes`},
		{"no name", "    sysctls:\n      vm.swappiness: \"1\"\n      swappiness: \"10\"\n", `m.yaml:8: spec.system.sysctls.swappiness: "swappiness" is not the name of a sysctl`},
		{"way out", "    sysctls:\n      net/../kernel/panic: \"10\"\n", `m.yaml:7: spec.system.sysctls.net/../kernel/panic: `},
		{"irrevocable", "    sysctls:\n      kernel.modules_disabled: \"1\"\n", `m.yaml:7: spec.system.sysctls.kernel.modules_disabled: cannot be set: it could not be undone; remove it`},
		{"pods' way", "    sysctls:\n      net.ipv4.conf.all.forwarding: \"0\"\n", `m.yaml:7: spec.system.sysctls.net.ipv4.conf.all.forwarding: cannot be set: pods need it`},
		{"two names", "    sysctls:\n      vm.swappiness: \"1\"\n      vm/swappiness: \"2\"\n", `m.yaml:8: spec.system.sysctls.vm/swappiness: is the same as vm.swappiness`},
		{"two lines", "    sysctls:\n      vm.swappiness: \"1\\n2\"\n", `m.yaml:7: spec.system.sysctls.vm.swappiness: `},
		{"another root", "    kernelArguments: [quiet, init=/bin/sh]\n", `m.yaml:6: spec.system.kernelArguments[1]: init decides what is started, which the boot file says; remove it`},
		{"another hash", "    kernelArguments: [bothy.root=00]\n", `m.yaml:6: spec.system.kernelArguments[0]: bothy.root decides`},
		{"two arguments", "    kernelArguments: [\"a b\"]\n", `m.yaml:6: spec.system.kernelArguments[0]: "a b" is not an argument of the kernel`},
		{"no prefix", "    interfaces:\n    - {name: eth1, addresses: [192.0.2.1]}\n", `m.yaml:7: spec.system.interfaces[0].addresses[0]: "192.0.2.1" is not an address with the length of its prefix; write it like 192.0.2.10/24`},
		{"two uplinks", "    interfaces:\n    - {name: eth0, uplink: true, dhcp: true}\n    - {name: eth1, uplink: true, dhcp: true}\n", `m.yaml:8: spec.system.interfaces[1].uplink: interfaces[0] is the uplink already; keep one of them`},
		{"nameless uplink", "    interfaces:\n    - {name: eth0, uplink: true}\n", `m.yaml:7: spec.system.interfaces[0].addresses: is empty, but the node's address is this interface's`},
		{"gateway elsewhere", "    interfaces:\n    - {name: eth1, addresses: [192.0.2.1/24], gateway: 192.0.2.2}\n", `m.yaml:7: spec.system.interfaces[0].gateway: is for the uplink only; write routes, or uplink: true`},
		{"default route", "    interfaces:\n    - {name: eth1, addresses: [192.0.2.1/24], routes: [{to: 0.0.0.0/0, via: 192.0.2.2}]}\n", `m.yaml:7: spec.system.interfaces[0].routes[0].to: a way to everything is the uplink's; write gateway`},
		{"mixed", "    interfaces:\n    - {name: eth1, routes: [{to: 198.51.100.0/24, via: \"2001:db8::1\"}]}\n", `m.yaml:7: spec.system.interfaces[0].routes[0].via: `},
		{"twice", "    interfaces:\n    - {name: eth1}\n    - {name: eth1, mtu: 9000}\n", `m.yaml:8: spec.system.interfaces[1].name: eth1 is already that of interfaces[0]`},
		{"no disk", "    disks:\n    - {name: a}\n", `m.yaml:7: spec.system.disks[0].serial: say which disk`},
		{"device", "    disks:\n    - {name: a, path: /etc/passwd}\n", `m.yaml:7: spec.system.disks[0].path: "/etc/passwd" is not the path of a device`},
		{"unknown", "    sysctl: {}\n", `m.yaml:6: spec.system.sysctl: unknown field; did you mean "sysctls"?`},
		{"hasty", "    revertAfter: 1s\n", "m.yaml:6: spec.system.revertAfter: must be 30s to 1h, not 1s; write a duration such as 5m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeMachine("m.yaml", []byte(machineHead+c.text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestNamesOfSysctls(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.conf.eth0/12.rp_filter": "net/ipv4/conf/eth0.12/rp_filter",
		"net/ipv4/conf/eth0.12/rp_filter": "net/ipv4/conf/eth0.12/rp_filter",
		"vm.swappiness":                   "vm/swappiness",
	} {
		if got := SysctlPath(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
