package netdata

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
	twoNodes(t, n, mine, theirs, func(p *peer) { p.connect("eth1", n.outside, router...) }, []netip.Addr{router[0].Addr(), router[1].Addr()}, func(api *fakeAPI, a, far pod, p *peer) {
		uplink := captured(t, "eth0")
		n.acrossNodePorts(t, api, far)
		if wrapped, naked := uplink(a, far); wrapped == 0 || naked > 0 {
			t.Errorf("%d packets on the uplink were wrapped, %d of the pods' were not", wrapped, naked)
		}
		t.Run("pods have room for the tunnel's headers", func(t *testing.T) {
			mtus(t, a, p, 1450)
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
	twoNodes(t, n, mine, theirs, func(p *peer) { p.connect("lan0", "", mine...) }, nil, func(_ *fakeAPI, a, far pod, p *peer) {
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

// acrossNodePorts has clients outside ask for pods of the other node at this one, which the pods see as their client.
func (n *testNode) acrossNodePorts(t *testing.T, api *fakeAPI, far pod) {
	api.put(service("across", "10.96.0.40", 30090, 80, 8080))
	api.put(slice("across", 8080, far))
	api.put(service6("across6", "fd00:96::40", 30096))
	api.put(slice6("across6", 8080, far))
	for proto, addr := range map[string]string{
		"tcp4": "192.168.50.1:30090", "udp4": "192.168.50.1:30090", "tcp6": "[fd00:50::1]:30096", "udp6": "[fd00:50::1]:30096",
	} {
		t.Run("outside to a pod of the other node "+proto, func(t *testing.T) {
			wait(t, "the node port", func() error { _, _, err := ask(t, n.outside, proto, addr); return err })
			want := "10.244.7.1" // has a way back through the tunnel
			if strings.HasSuffix(proto, "6") {
				want = "fd00:244:0:7::1"
			}
			expect(t, n.outside, proto, addr, "far", want)
		})
	}
	t.Run("much data to a pod of the other node", func(t *testing.T) {
		for proto, addr := range map[string]string{"tcp4": "192.168.50.1:30090", "tcp6": "[fd00:50::1]:30096"} {
			c, err := dial(t, n.outside, proto, addr)
			must(t, err)
			defer c.Close()
			for range 20 {
				// More than one packet of the client's link, which are larger than those that a tunnel takes.
				if _, err := say(c, strings.Repeat("x", 20000)); err != nil {
					t.Fatalf("%s: %v", proto, err)
				}
			}
		}
	})
}

// TestTunnelsOnOneLink: the link carries nothing but what is wrapped, though the nodes could do without.
func TestTunnelsOnOneLink(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	mine, theirs := prefixes("10.99.0.1/24", "fd00:99::1/64"), prefixes("10.99.0.2/24", "fd00:99::2/64")
	n.cfg.Uplink, n.cfg.Encapsulate = "lan0", true
	twoNodes(t, n, mine, theirs, func(p *peer) { p.connect("lan0", "", mine...) }, nil, func(api *fakeAPI, a, far pod, p *peer) {
		mtus(t, a, p, 1450)
		lan := captured(t, "lan0")
		api.put(service("across", "10.96.0.40", 30090, 80, 8080))
		api.put(slice("across", 8080, far))
		t.Run("a pod of the other node, to itself by way of a node port here", func(t *testing.T) {
			wait(t, "the node port", func() error { _, _, err := ask(t, a.ns, "tcp4", "10.99.0.1:30090"); return err })
			if r := p.do(question{"ask", "tcp4", "10.99.0.1:30090"}); r.Server != "far" || r.Client != "10.244.7.1" {
				t.Errorf("answered by %q, which saw %q", r.Server, r.Client)
			}
		})
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
		if wrapped, naked := lan(a, far); wrapped == 0 || naked > 0 {
			t.Errorf("%d packets on the link were wrapped, %d of the pods' were not", wrapped, naked)
		}
		if problems := n.network.Status().Nodes.Problems; len(problems) > 0 {
			t.Errorf("problems: %v", problems)
		}
	})
}

// captured listens on a device until it is asked how many of the packets were in vxlan, and how many had a pod's address in
// their outermost header.
func captured(t *testing.T, dev string) func(pods ...pod) (wrapped, naked int) {
	t.Helper()
	link, err := netlink.LinkByName(dev)
	must(t, err)
	const every = 0x0300 // ETH_P_ALL in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, every)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every, Ifindex: link.Attrs().Index}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20))
	return func(pods ...pod) (wrapped, naked int) {
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return wrapped, naked
			}
			switch p := buf[:k]; {
			case k >= 40 && p[0]>>4 == 6:
				for _, pod := range pods {
					if a := pod.addr6.AsSlice(); bytes.Equal(p[8:24], a) || bytes.Equal(p[24:40], a) {
						naked++
					}
				}
			case k >= 28 && p[0]>>4 == 4:
				if p[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(p[22:]) == 4789 {
					wrapped++
				}
				for _, pod := range pods {
					if a := pod.addr.AsSlice(); bytes.Equal(p[12:16], a) || bytes.Equal(p[16:20], a) {
						naked++
					}
				}
			}
		}
	}
}

// mtus waits until the pods on both nodes have the MTU.
func mtus(t *testing.T, a pod, p *peer, want int) {
	t.Helper()
	wait(t, "the MTU of the pods", func() error {
		dev, err := in(t, a.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") })
		if err != nil {
			return err
		}
		if theirs := p.do(question{Do: "mtu"}).MTU; dev.MTU != want || theirs != want {
			return fmt.Errorf("%d here and %d there, want %d", dev.MTU, theirs, want)
		}
		return nil
	})
}

// twoNodes starts both, with a pod on each, and lets them meet. At last the second node leaves.
func twoNodes(t *testing.T, n *testNode, mine, theirs []netip.Prefix, connect func(*peer), gateways []netip.Addr, meet func(api *fakeAPI, a, far pod, p *peer)) {
	p := startPeer(t, peerSpec{Addrs: theirs, Gateways: gateways, Kubeconfig: n.dir + "/kubeconfig", Encapsulate: n.cfg.Encapsulate})
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
	meet(api, a, pod{name: "far", addr: addrs[0], addr6: addrs[1]}, p)

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
