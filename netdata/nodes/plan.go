package nodes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Node is what matters of a node here.
type Node struct {
	Name string
	// Addrs are its internal addresses, the first being the one it is known by.
	Addrs []netip.Addr
	// Pods are its pod ranges.
	Pods []netip.Prefix
}

// addr is the node's address in the family of another, not valid if it has none.
func (n Node) addr(like netip.Addr) netip.Addr {
	for _, a := range n.Addrs {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// Route leads to the pods of another node.
type Route struct {
	// Pods is the range.
	Pods netip.Prefix
	// Via is the other node's address in the same family.
	Via netip.Addr
	// Tunnel is the address packets are wrapped for; not valid if they go as they are.
	Tunnel netip.Addr
}

func (r Route) String() string {
	if r.Tunnel.IsValid() {
		return fmt.Sprintf("%s through a tunnel to %s", r.Pods, r.Tunnel)
	}
	return fmt.Sprintf("%s via %s", r.Pods, r.Via)
}

// Plan returns the routes from self to all others, sorted, and what is wrong with some
// nodes. onLink are the ranges to which packets go as they are: those of the uplink itself, or none.
func Plan(self Node, onLink []netip.Prefix, all []Node) ([]Route, []error) {
	peers := slices.DeleteFunc(slices.Clone(all), func(n Node) bool { return n.Name == self.Name })
	slices.SortFunc(peers, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	var routes []Route
	var problems []error
	taken := map[netip.Prefix]string{}
	for _, p := range self.Pods {
		taken[p] = self.Name
	}
	for _, n := range peers {
		for _, pods := range n.Pods {
			if owner := overlapping(pods, taken); owner != "" {
				problems = append(problems, fmt.Errorf("node %s: pod range %s is that of node %s, or overlaps it", n.Name, pods, owner))
				continue
			}
			taken[pods] = n.Name
			if r, ok := route(self, onLink, n, pods); ok {
				routes = append(routes, r)
			}
		}
	}
	slices.SortFunc(routes, func(a, b Route) int { return a.Pods.Addr().Compare(b.Pods.Addr()) })
	return routes, problems
}

// route is the way to one range; there is none in a family that one of the two does not have.
func route(self Node, onLink []netip.Prefix, n Node, pods netip.Prefix) (Route, bool) {
	via := n.addr(pods.Addr())
	if !via.IsValid() || !self.addr(pods.Addr()).IsValid() {
		return Route{}, false
	}
	r := Route{Pods: pods, Via: via}
	if slices.ContainsFunc(onLink, func(p netip.Prefix) bool { return p.Contains(via) }) {
		return r, true
	}
	for _, outer := range n.Addrs {
		if self.addr(outer).IsValid() {
			r.Tunnel = outer
			return r, true
		}
	}
	return Route{}, false
}

func overlapping(p netip.Prefix, taken map[netip.Prefix]string) string {
	for t, owner := range taken {
		if t.Overlaps(p) {
			return owner
		}
	}
	return ""
}

// FromObject reads a Node object. A node that has no ranges or addresses yet has no routes.
func FromObject(obj *corev1.Node) Node {
	n := Node{Name: obj.Name}
	for _, a := range obj.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			n.Addrs = append(n.Addrs, addr)
		}
	}
	for _, s := range obj.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			n.Pods = append(n.Pods, p.Masked())
		}
	}
	return n
}
