package cni

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

func TestHostPorts(t *testing.T) {
	pod := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	for name, tc := range map[string]struct {
		mapping wire.PortMapping
		want    []string
	}{
		"every address":     {wire.PortMapping{HostPort: 80, ContainerPort: 8080}, []string{"0.0.0.0:80/TCP 10.0.0.2:8080", "[::]:80/TCP [fd00::2]:8080"}},
		"one address":       {wire.PortMapping{HostPort: 80, ContainerPort: 8080, Protocol: "udp", HostIP: "192.0.2.1"}, []string{"192.0.2.1:80/UDP 10.0.0.2:8080"}},
		"every IPv4":        {wire.PortMapping{HostPort: 80, ContainerPort: 8080, HostIP: "0.0.0.0"}, []string{"0.0.0.0:80/TCP 10.0.0.2:8080"}},
		"an IPv6 address":   {wire.PortMapping{HostPort: 80, ContainerPort: 8080, Protocol: "SCTP", HostIP: "fd00::1"}, []string{"[fd00::1]:80/SCTP [fd00::2]:8080"}},
		"no port on a host": {wire.PortMapping{ContainerPort: 8080}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ports, err := hostPorts(tc.mapping, pod)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range ports {
				got = append(got, p.String()+" "+p.Pod.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostPortsThatCannotBe(t *testing.T) {
	for name, m := range map[string]wire.PortMapping{
		"host port too large":      {HostPort: 65536, ContainerPort: 80},
		"host port negative":       {HostPort: -1, ContainerPort: 80},
		"container port missing":   {HostPort: 80},
		"unknown protocol":         {HostPort: 80, ContainerPort: 80, Protocol: "icmp"},
		"host IP is not a literal": {HostPort: 80, ContainerPort: 80, HostIP: "node.example"},
	} {
		if err := checkPorts([]wire.PortMapping{{ContainerPort: 1}, m}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
