package netdata

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/netdata/nodes"
)

func nodeObject(name string, pods []string, addrs ...netip.Prefix) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: pods}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.Addr().String()})
	}
	return n
}

// TestNodesBehindARouter: packets between pods are wrapped, since the router knows no pods.
func TestNodesBehindARouter(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	forwarding(t, n.outside)
	mine, theirs := prefixes("192.168.50.1/24", "fd00:50::1/64"), prefixes("192.168.51.1/24", "fd00:51::1/64")
	router := prefixes("192.168.51.2/24", "fd00:51::2/64")
	twoNodes(t, n, mine, theirs, func(p *peer) { p.connect("eth1", n.outside, router...) }, []netip.Addr{router[0].Addr(), router[1].Addr()}, func(a, far pod, p *peer) {
		t.Run("pods have room for the tunnel's headers", func(t *testing.T) {
			wait(t, "the MTU of the pods", func() error {
				dev, err := in(t, a.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") })
				if err != nil {
					return err
				}
				if theirs := p.do(question{Do: "mtu"}).MTU; dev.MTU != 1450 || theirs != 1450 {
					return fmt.Errorf("%d here and %d there", dev.MTU, theirs)
				}
				return nil
			})
		})
		for _, proto := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
			to, from, back := far.at(8080), a.addr.String(), a.at(8080)
			if strings.HasSuffix(proto, "6") {
				to, from, back = far.at6(8080), a.addr6.String(), a.at6(8080)
			}
			t.Run("pod to pod "+proto, func(t *testing.T) { expect(t, a.ns, proto, to, "far", from) })
			t.Run("node to pod "+proto, func(t *testing.T) {
				gateway := "10.244.7.1"
				if strings.HasSuffix(proto, "6") {
					gateway = "fd00:244:0:7::1"
				}
				expect(t, "", proto, to, "far", gateway)
			})
			t.Run("and back "+proto, func(t *testing.T) {
				if r := p.do(question{"ask", proto, back}); r.Server != "a" || netip.MustParseAddr(r.Client) != addrLike(far, proto) {
					t.Errorf("answered by %s, which saw %s", r.Server, r.Client)
				}
			})
		}
		t.Run("a narrower uplink", func(t *testing.T) {
			uplink, err := netlink.LinkByName("eth0")
			must(t, err)
			must(t, netlink.LinkSetMTU(uplink, 1400))
			wait(t, "the MTU of pod and tunnel", func() error {
				dev, err := in(t, a.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") })
				if err != nil {
					return err
				}
				tunnel, err := netlink.LinkByName(nodes.TunnelDev)
				if err != nil {
					return err
				}
				if dev.MTU != 1350 || tunnel.Attrs().MTU != 1350 {
					return fmt.Errorf("%d and %d", dev.MTU, tunnel.Attrs().MTU)
				}
				return nil
			})
		})
	})
}

func addrLike(p pod, proto string) netip.Addr {
	if strings.HasSuffix(proto, "6") {
		return p.addr6
	}
	return p.addr
}

// TestNodesOnOneLink: no tunnel is needed.
func TestNodesOnOneLink(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	mine, theirs := prefixes("10.99.0.1/24", "fd00:99::1/64"), prefixes("10.99.0.2/24", "fd00:99::2/64")
	n.cfg.Uplink = "lan0"
	twoNodes(t, n, mine, theirs, func(p *peer) { p.connect("lan0", "", mine...) }, nil, func(a, far pod, p *peer) {
		for _, proto := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
			to, from, back := far.at(8080), a.addr.String(), a.at(8080)
			if strings.HasSuffix(proto, "6") {
				to, from, back = far.at6(8080), a.addr6.String(), a.at6(8080)
			}
			t.Run("pod to pod "+proto, func(t *testing.T) { expect(t, a.ns, proto, to, "far", from) })
			t.Run("and back "+proto, func(t *testing.T) {
				if r := p.do(question{"ask", proto, back}); r.Server != "a" || netip.MustParseAddr(r.Client) != addrLike(far, proto) {
					t.Errorf("answered by %s, which saw %s", r.Server, r.Client)
				}
			})
		}
		if _, err := netlink.LinkByName(nodes.TunnelDev); err == nil {
			t.Errorf("there is a tunnel device")
		}
	})
}

// twoNodes starts both, with a pod on each, and lets them meet. At last the second node leaves.
func twoNodes(t *testing.T, n *testNode, mine, theirs []netip.Prefix, connect func(*peer), gateways []netip.Addr, meet func(a, far pod, p *peer)) {
	p := startPeer(t, peerSpec{Addrs: theirs, Gateways: gateways, Kubeconfig: n.dir + "/kubeconfig"})
	connect(p)
	api := newFakeAPIAt(t, mine[0].Addr().String()+":0")
	api.kubeconfig(n.dir)
	here, there := []string{"10.244.7.0/24", "fd00:244:0:7::/64"}, []string{"10.244.8.0/24", "fd00:244:0:8::/64"}
	far := nodeObject("far", there, theirs...)
	api.put(nodeObject("node", here, mine...))
	api.put(far)
	n.cfg.NodeIPs = []netip.Addr{mine[0].Addr(), mine[1].Addr()}
	n.start("nodes", "services")
	a := n.pod(buildPlugin(t, n.dir), "a")
	echoTCP(t, a.ns, ":8080", "a")
	echoUDP(t, a.ns, ":8080", "a")
	addrs := p.do(question{Do: "start"}).Addrs
	meet(a, pod{name: "far", addr: addrs[0], addr6: addrs[1]}, p)

	t.Run("a node leaves", func(t *testing.T) {
		api.remove(far)
		wait(t, "its routes to go", func() error {
			if left := n.network.Status().Nodes.Routes; len(left) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
		if _, err := netlink.LinkByName(nodes.TunnelDev); err == nil {
			t.Errorf("the tunnel device is left")
		}
	})
	n.stop()
	must(t, Cleanup(n.cfg))
}
