package netdata

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nodeLifeIPv6 is what nodeLife looks at, in the node's second family.
func nodeLifeIPv6(t *testing.T, n *testNode, api *fakeAPI, a, b pod) {
	for _, obj := range []*corev1.Service{
		service6("web6", "fd00:96::20", 30086), service6("self6", "fd00:96::21", 0), service6("empty6", "fd00:96::22", 30087),
	} {
		api.put(obj)
	}
	api.put(slice6("web6", 8080, b))
	api.put(slice6("self6", 8080, a))
	wait(t, "the services to be in force", func() error {
		_, _, err := ask(t, a.ns, "tcp6", "[fd00:96::20]:80")
		return err
	})
	for _, proto := range []string{"tcp6", "udp6"} {
		t.Run("pod to pod "+proto, func(t *testing.T) { expect(t, a.ns, proto, b.at6(8080), "b", a.addr6.String()) })
		t.Run("node to pod "+proto, func(t *testing.T) { expect(t, "", proto, b.at6(8080), "b", nodeIP6.String()) })
		t.Run("pod to cluster IP "+proto, func(t *testing.T) { expect(t, a.ns, proto, "[fd00:96::20]:80", "b", a.addr6.String()) })
		t.Run("hairpin "+proto, func(t *testing.T) { expect(t, a.ns, proto, "[fd00:96::21]:80", "a", "100::1") })
		t.Run("outside to node port "+proto, func(t *testing.T) { expect(t, n.outside, proto, "[fd00:50::1]:30086", "b", outsideIP6.String()) })
		t.Run("pod to node port "+proto, func(t *testing.T) { expect(t, a.ns, proto, "[fd00:50::1]:30086", "b", a.addr6.String()) })
		t.Run("pod to outside "+proto, func(t *testing.T) { expect(t, a.ns, proto, "[fd00:50::2]:9000", "outside", nodeIP6.String()) })
		t.Run("refused "+proto, func(t *testing.T) {
			for _, addr := range []string{"[fd00:96::22]:80", "[fd00:96::20]:81", "[fd00:96::77]:80"} {
				expectRefused(t, a.ns, proto, addr)
			}
			expectRefused(t, n.outside, proto, "[fd00:50::1]:30087")
		})
		t.Run("host process to a Service "+proto, func(t *testing.T) {
			if n.cfg.HostCgroup == "" {
				t.Skip("no cgroup2 here")
			}
			expect(t, "", proto, "[fd00:96::20]:80", "b", nodeIP6.String())
			expectRefused(t, "", proto, "[fd00:96::22]:80")
		})
	}
	t.Run("datagrams follow a changed backend", func(t *testing.T) {
		n.follows(t, b, "udp6", "[fd00:96::21]:80", func(p pod) { api.put(slice6("self6", 8080, p)) }, a)
	})
	t.Run("names", func(t *testing.T) {
		for _, server := range []string{dnsIP.String(), dnsIP6.String()} {
			wait(t, "the name of a service from "+server, func() error {
				return resolvesTo(t, a.ns, server, "web6.default.svc.cluster.local.", dns.TypeAAAA, "fd00:96::20")
			})
		}
	})
	t.Run("a pod is silent until it speaks", func(t *testing.T) { silent(t, n, a) })
}

// silent makes sure that a pod neither has a link-local address nor says anything from one.
func silent(t *testing.T, n *testNode, p pod) {
	t.Helper()
	found, err := in(t, p.ns, func() ([]netlink.Addr, error) {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return nil, err
		}
		return netlink.AddrList(dev, unix.AF_INET6)
	})
	must(t, err)
	if len(found) != 1 || found[0].IP.String() != p.addr6.String() || found[0].Flags&unix.IFA_F_TENTATIVE != 0 {
		t.Errorf("the pod has %v, want %s alone, and not tentative", found, p.addr6)
	}
	if n := n.network.Status().Drops["spoofed-source"]; n != 1 { // that of the test for it
		t.Errorf("%d packets with a foreign source", n)
	}
}

func service6(name, ip string, nodePort int32) *corev1.Service {
	s := service(name, ip, nodePort, 80, 8080)
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	return s
}

func slice6(name string, port int32, p pod) *discoveryv1.EndpointSlice {
	s := sliceOf(name, port, p.addr6)
	s.AddressType = discoveryv1.AddressTypeIPv6
	return s
}

// TestPodWhoseNamespaceHasNoIPv6: a runtime may have switched it off.
func TestPodWhoseNamespaceHasNoIPv6(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	n.cfg.PodCIDRs = testPodCIDRs
	n.start("cni")
	plugin := buildPlugin(t, n.dir)
	ns := n.makeNetns("dark")
	_, err := in(t, ns, func() (struct{}, error) {
		for _, name := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	must(t, err)
	out, err := n.cni(plugin, "ADD", "container-dark", ns)
	must(t, err)
	p := pod{ns: ns}
	p.addr6 = parseResult(t, out).addr6
	echoTCP(t, ns, ":8080", "dark")
	expect(t, "", "tcp6", p.at6(8080), "dark", nodeIP6.String())
}

// TestIPv4Node: a node without IPv6 in a cluster that has it.
func TestIPv4Node(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	n.cfg.NodeIPs = n.cfg.NodeIPs[:1]
	n.cfg.PodCIDRs = testPodCIDRs
	oneFamily(t, n, "tcp4", ".", nodeIP.String())
}

// TestIPv6Node: a node without IPv4.
func TestIPv6Node(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	n.cfg.NodeIPs = n.cfg.NodeIPs[1:]
	n.cfg.PodCIDRs = testPodCIDRs
	oneFamily(t, n, "tcp6", ":", nodeIP6.String())
}

func oneFamily(t *testing.T, n *testNode, proto, separator, node string) {
	n.start("cni")
	plugin := buildPlugin(t, n.dir)
	ns := n.makeNetns("a")
	out, err := n.cni(plugin, "ADD", "container-a", ns)
	must(t, err)
	p := parseResult(t, out)
	at := p.at(8080)
	if separator == ":" {
		at = p.at6(8080)
	}
	if p.addr.IsValid() == p.addr6.IsValid() {
		t.Fatalf("want one address: %s", out)
	}
	echoTCP(t, ns, ":8080", "a")
	expect(t, "", proto, at, "a", node)
	if s := n.network.Status(); s.Pods != 1 || len(s.PodRanges) != 1 || s.Notices["families"] == "" {
		t.Errorf("%d pods, ranges %v, notices %v", s.Pods, s.PodRanges, s.Notices)
	}
	// Tools find DNS by the Service of the cluster, whatever this node lacks.
	if objects := string(n.network.SystemObjects()); !strings.Contains(objects, `clusterIPs: ["10.96.0.10", "fd00:96::a"]`) {
		t.Errorf("the DNS Service lacks an address:\n%s", objects)
	}
	if _, err := n.cni(plugin, "DEL", "container-a", ns); err != nil {
		t.Error(err)
	}
	n.stop()
	must(t, Cleanup(n.cfg))
	n.expectNothingLeft()
}

// TestChangedMTU: the way out gets narrower while pods run.
func TestChangedMTU(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	n.cfg.PodCIDRs = testPodCIDRs
	n.start("cni")
	plugin := buildPlugin(t, n.dir)
	p := n.pod(plugin, "a")
	uplink, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.LinkSetMTU(uplink, 1400))
	ends := func() error {
		host, err := netlink.LinkByName(p.dev)
		if err != nil {
			return err
		}
		inside, err := in(t, p.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") })
		if err != nil {
			return err
		}
		if host.Attrs().MTU != 1400 || inside.MTU != 1400 {
			return fmt.Errorf("MTU is %d outside and %d inside", host.Attrs().MTU, inside.MTU)
		}
		return nil
	}
	wait(t, "the pod's MTU to follow", ends)
	later := n.pod(plugin, "b")
	inside, err := in(t, later.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") })
	must(t, err)
	if inside.MTU != 1400 {
		t.Errorf("a later pod has MTU %d", inside.MTU)
	}
}
