package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// roles are the pods of a side.
const (
	clientPod = "client"
	serverPod = "server"
	otherPod  = "other" // another server, to which a Service moves
	farPod    = "far"   // a server on another node, which not every side has
)

var roles = []string{clientPod, serverPod, otherPod}

// side is where packets go.
type side struct {
	name string
	// node is where host processes run, in the cgroup if it is set.
	node   *cluster.Namespace
	cgroup string
	// nodeIP is what node ports listen on.
	nodeIP string
	pods   map[string]*cluster.Namespace
	ips    map[string]string
	ips6   map[string]string // none, if the side has no IPv6
	// podCgroup is where clients and servers of pods run, if it is set.
	podCgroup string
	// shift is added to the ports of the servers: another side has its own in the same pods.
	shift int32
	// servers in the pod "server" by test, for each family, and in the pod "far".
	servers, servers6, farServers map[string]int
	// pause and resume what keeps the rules true to the API.
	pause, resume func() error
	// usage names the process that does so.
	process func() (int, error)
	close   []func() error
}

func (s *side) end() error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i]())
	}
	return errors.Join(errs...)
}

// newLoopback has everything in one namespace.
func newLoopback() (*side, error) {
	ns, err := cluster.NewNamespace()
	if err != nil {
		return nil, err
	}
	s := &side{
		name: loopback, node: ns, close: []func() error{ns.Close},
		pods: map[string]*cluster.Namespace{clientPod: ns, serverPod: ns}, ips: map[string]string{serverPod: "127.0.0.1"},
		ips6: map[string]string{serverPod: "::1"},
	}
	h, err := netlink.NewHandleAt(ns.Handle())
	if err != nil {
		return s, err
	}
	defer h.Close()
	return s, errors.Join(up(h, "lo"), s.tune())
}

// tune gives clients so many ports that they need none twice in a round.
func (s *side) tune() error {
	return sysctl(s.pods[clientPod], map[string]string{"net/ipv4/ip_local_port_range": "10240 65535"})
}

// newRouter makes a namespace that routes between pods with the addresses given, which
// are those that the same pods have on our node: the same Services serve both. index
// tells apart the links to this machine. There is no IPv6 without addresses for it.
func newRouter(name string, index int, ips, ips6 map[string]string) (s *side, err error) {
	s = &side{name: name, pods: map[string]*cluster.Namespace{}, ips: ips, ips6: ips6}
	defer func() {
		if err != nil {
			err = fmt.Errorf("make the namespaces of %s: %w", name, errors.Join(err, s.end()))
		}
	}()
	if s.node, err = cluster.NewNamespace(); err != nil {
		return s, err
	}
	s.close = append(s.close, s.node.Close)
	if err := sysctl(s.node, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
		"net/ipv6/conf/all/forwarding": "1",
	}); err != nil {
		return s, err
	}
	h, err := netlink.NewHandleAt(s.node.Handle())
	if err != nil {
		return s, err
	}
	defer h.Close()
	if err := up(h, "lo"); err != nil {
		return s, err
	}
	if err := s.connectHost(h, index); err != nil {
		return s, err
	}
	for _, role := range roles {
		if s.pods[role], err = cluster.NewNamespace(); err != nil {
			return s, err
		}
		s.close = append(s.close, s.pods[role].Close)
		if err := connectPod(h, role, s.pods[role], ips[role], ips6[role]); err != nil {
			return s, err
		}
	}
	return s, s.tune()
}

// uplink is the range of the link between this machine and a router.
func uplink(index int) (prefix netip.Prefix, host, node string) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 127, byte(index), 0}), 29),
		fmt.Sprintf("100.127.%d.1", index), fmt.Sprintf("100.127.%d.2", index)
}

func (s *side) connectHost(h *netlink.Handle, index int) error {
	prefix, hostIP, nodeIP := uplink(index)
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	link := fmt.Sprintf("bench-net%d", index)
	if err := addVeth(host, link, "eth0", s.node); err != nil {
		return err
	}
	s.nodeIP = nodeIP
	return errors.Join(
		addAddress(host, link, hostIP, prefix.Bits()), up(host, link),
		addAddress(h, "eth0", nodeIP, prefix.Bits()), up(h, "eth0"),
		h.RouteAdd(&netlink.Route{Gw: net.ParseIP(hostIP)}),
	)
}

// The gateways are every pod's, much as on our node.
const (
	gateway  = "169.254.1.1"
	gateway6 = "fd00:ffff::1"
)

// connectPod makes a pair of devices as CNI plugins do. Neighbours are entered by hand, so
// that none is asked for during a measurement.
func connectPod(h *netlink.Handle, role string, pod *cluster.Namespace, ip, ip6 string) error {
	if err := addVeth(h, role, "eth0", pod); err != nil {
		return err
	}
	p, err := netlink.NewHandleAt(pod.Handle())
	if err != nil {
		return err
	}
	defer p.Close()
	if err := errors.Join(up(p, "lo"), addAddress(p, "eth0", ip, 32), up(p, "eth0"), up(h, role)); err != nil {
		return err
	}
	outer, err := h.LinkByName(role)
	if err != nil {
		return err
	}
	inner, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	err = connectEnds(h, p, outer, inner, ip, gateway)
	if err != nil || ip6 == "" {
		return err
	}
	nodad := &netlink.Addr{IPNet: hostPrefix(ip6), Flags: unix.IFA_F_NODAD}
	return errors.Join(p.AddrAdd(inner, nodad), connectEnds(h, p, outer, inner, ip6, gateway6))
}

// connectEnds routes one address of a pod to and fro.
func connectEnds(h, p *netlink.Handle, outer, inner netlink.Link, ip, via string) error {
	return errors.Join(
		addNeighbour(h, outer, ip, inner), addNeighbour(p, inner, via, outer),
		h.RouteAdd(&netlink.Route{LinkIndex: outer.Attrs().Index, Dst: hostPrefix(ip), Scope: netlink.SCOPE_LINK}),
		p.RouteAdd(&netlink.Route{LinkIndex: inner.Attrs().Index, Dst: hostPrefix(via), Scope: netlink.SCOPE_LINK}),
		p.RouteAdd(&netlink.Route{LinkIndex: inner.Attrs().Index, Gw: net.ParseIP(via), Dst: everywhere(via)}),
	)
}

// everywhere is the destination of a default route in the family of an address.
func everywhere(ip string) *net.IPNet {
	size := 8 * len(hostPrefix(ip).IP)
	return &net.IPNet{IP: make(net.IP, size/8), Mask: net.CIDRMask(0, size)}
}

func addVeth(h *netlink.Handle, name, peer string, in *cluster.Namespace) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(int(in.Handle()))}); err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	return nil
}

func addNeighbour(h *netlink.Handle, link netlink.Link, ip string, peer netlink.Link) error {
	return h.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: net.ParseIP(ip), HardwareAddr: peer.Attrs().HardwareAddr, State: unix.NUD_PERMANENT,
	})
}

func addAddress(h *netlink.Handle, name, ip string, bits int) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(bits, 32)}})
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

func hostPrefix(ip string) *net.IPNet {
	if four := net.ParseIP(ip).To4(); four != nil {
		return &net.IPNet{IP: four, Mask: net.CIDRMask(32, 32)}
	}
	return &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(128, 128)}
}

func sysctl(ns *cluster.Namespace, values map[string]string) error {
	return ns.Do(func() error {
		var errs []error
		for name, value := range values {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0))
		}
		return errors.Join(errs...)
	})
}
