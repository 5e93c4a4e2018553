package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// tunnelMTU leaves room for the headers of vxlan over IPv4.
const tunnelMTU = 1450

// addFarNode gives a router a second one on the same link, which routes to the pod "far" with the address that it has on
// our second node. The link is a bridge of this machine, as `bothy up` joins its nodes.
func (s *side) addFarNode(index int, encapsulate bool) error {
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	bridge := fmt.Sprintf("bench-lan%d", index)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	if err := host.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make %s: %w", bridge, err)
	}
	s.close = append(s.close, func() error { return removeLink(bridge) })
	if err := up(host, bridge); err != nil {
		return err
	}
	far, err := cluster.NewNamespace()
	if err != nil {
		return err
	}
	s.close = append(s.close, far.Close)
	if err := sysctl(far, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
	}); err != nil {
		return err
	}
	near := &lanNode{ns: s.node, ip: fmt.Sprintf("100.126.%d.1", index)}
	other := &lanNode{ns: far, ip: fmt.Sprintf("100.126.%d.2", index)}
	for i, n := range []*lanNode{near, other} {
		if err := n.connect(host, bridge, fmt.Sprintf("bench-lan%d-%d", index, i)); err != nil {
			return err
		}
		defer n.handle.Close()
	}
	if s.pods[farPod], err = cluster.NewNamespace(); err != nil {
		return err
	}
	s.close = append(s.close, s.pods[farPod].Close)
	if err := errors.Join(up(other.handle, "lo"), connectPod(other.handle, farPod, s.pods[farPod], s.ips[farPod], "")); err != nil {
		return err
	}
	errs := []error{near.route(other, s.ips[farPod], encapsulate)}
	for _, role := range roles {
		errs = append(errs, other.route(near, s.ips[role], encapsulate))
	}
	if encapsulate { // as CNI plugins give it to pods
		for _, role := range append([]string{farPod}, roles...) {
			errs = append(errs, narrow(s.pods[role]))
		}
	}
	return errors.Join(errs...)
}

// lanNode is a router on a link with another.
type lanNode struct {
	ns     *cluster.Namespace
	ip     string
	handle *netlink.Handle // in ns
	tunnel netlink.Link    // nil until a route needs it
}

const lanDev, tunnelDev = "lan0", "vx0"

func (n *lanNode) connect(host *netlink.Handle, bridge, port string) error {
	if err := addVeth(host, port, lanDev, n.ns); err != nil {
		return err
	}
	outer, err := host.LinkByName(port)
	if err != nil {
		return err
	}
	segment, err := host.LinkByName(bridge)
	if err != nil {
		return err
	}
	if n.handle, err = netlink.NewHandleAt(n.ns.Handle()); err != nil {
		return err
	}
	return errors.Join(host.LinkSetMaster(outer, segment), host.LinkSetUp(outer), addAddress(n.handle, lanDev, n.ip, 29), up(n.handle, lanDev))
}

// route sends what is for a pod to another node, in a tunnel if asked to: as flannel does, with neighbours and the
// forwarding table entered by hand.
func (n *lanNode) route(to *lanNode, ip string, encapsulate bool) error {
	route := &netlink.Route{Dst: hostPrefix(ip), Gw: net.ParseIP(to.ip)}
	if encapsulate {
		if err := errors.Join(n.ensureTunnel(), to.ensureTunnel()); err != nil {
			return err
		}
		mac := to.tunnel.Attrs().HardwareAddr
		index := n.tunnel.Attrs().Index
		route.LinkIndex, route.Flags = index, int(netlink.FLAG_ONLINK)
		if err := errors.Join(
			addNeighbour(n.handle, n.tunnel, to.ip, to.tunnel),
			n.handle.NeighSet(&netlink.Neigh{
				LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: net.ParseIP(to.ip), HardwareAddr: mac,
			}),
		); err != nil {
			return err
		}
	}
	if err := n.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s to %s: %w", ip, to.ip, err)
	}
	return nil
}

func (n *lanNode) ensureTunnel() error {
	if n.tunnel != nil {
		return nil
	}
	lan, err := n.handle.LinkByName(lanDev)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = tunnelDev, tunnelMTU
	if err := n.handle.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 1, VtepDevIndex: lan.Attrs().Index, SrcAddr: net.ParseIP(n.ip), Port: 4789, Learning: false,
	}); err != nil {
		return fmt.Errorf("make %s: %w", tunnelDev, err)
	}
	if err := up(n.handle, tunnelDev); err != nil {
		return err
	}
	n.tunnel, err = n.handle.LinkByName(tunnelDev)
	return err
}

func narrow(pod *cluster.Namespace) error {
	h, err := netlink.NewHandleAt(pod.Handle())
	if err != nil {
		return err
	}
	defer h.Close()
	dev, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	return h.LinkSetMTU(dev, tunnelMTU)
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
