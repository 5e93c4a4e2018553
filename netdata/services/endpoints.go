package services

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/bothy-os/bothy/netdata/maps"
)

// endpoint is one that can be used: it is ready or, when there is no other, leaving but
// still serving.
type endpoint struct {
	at           netip.AddrPort
	leaving      bool
	onNode       bool // runs here
	nodes, zones []string
}

// endpoints are those of one port in one family.
type endpoints struct {
	all  []endpoint
	node Node
}

// cluster returns those to which traffic from anywhere goes. Where the endpoints say for
// which nodes or zones they are meant, and there are some for this one, the others are
// left out. That takes all ready ones to say so: a mixture is what a change looks like while it
// is under way.
func (e endpoints) cluster() []netip.AddrPort {
	here := func(x endpoint) bool { return true }
	switch {
	case e.meant(func(x endpoint) []string { return x.nodes }, e.node.Name):
		here = func(x endpoint) bool { return slices.Contains(x.nodes, e.node.Name) }
	case e.meant(func(x endpoint) []string { return x.zones }, e.node.Zone):
		here = func(x endpoint) bool { return slices.Contains(x.zones, e.node.Zone) }
	}
	return e.pick(here)
}

// meant reports whether all ready endpoints have hints, and some for the place.
func (e endpoints) meant(hints func(endpoint) []string, place string) bool {
	found := false
	for _, x := range e.all {
		if x.leaving {
			continue
		}
		if len(hints(x)) == 0 {
			return false
		}
		found = found || slices.Contains(hints(x), place)
	}
	return found && place != ""
}

// local returns those on this node. If there are only others, traffic is to be dropped: who
// balances between nodes then sends it elsewhere, which a refusal would not make it do.
func (e endpoints) local() (maps.ServiceFlags, []netip.AddrPort) {
	here := e.pick(func(x endpoint) bool { return x.onNode })
	if len(here) == 0 && len(e.all) > 0 {
		return maps.ServiceDropEmpty, nil
	}
	return 0, here
}

func (e endpoints) pick(want func(endpoint) bool) []netip.AddrPort {
	ready := e.those(func(x endpoint) bool { return !x.leaving && want(x) })
	if len(ready) == 0 {
		ready = e.those(func(x endpoint) bool { return x.leaving && want(x) })
	}
	slices.SortFunc(ready, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	return slices.Compact(ready)
}

// those returns a slice of just the right size: the writer keeps it.
func (e endpoints) those(want func(endpoint) bool) []netip.AddrPort {
	n := 0
	for _, x := range e.all {
		if want(x) {
			n++
		}
	}
	out := make([]netip.AddrPort, 0, n)
	for _, x := range e.all {
		if want(x) {
			out = append(out, x.at)
		}
	}
	return out
}

// endpoints finds who serves the port.
func (c *compiler) endpoints(port corev1.ServicePort, is4 bool) endpoints {
	out := endpoints{node: c.node, all: make([]endpoint, 0, c.count())}
	want := discoveryv1.AddressTypeIPv6
	if is4 {
		want = discoveryv1.AddressTypeIPv4
	}
	for _, slice := range c.slices {
		number := slicePort(slice, port)
		if slice.AddressType != want || number == 0 {
			continue
		}
		for _, ep := range slice.Endpoints {
			addr, ok := c.endpointAddr(slice, ep, is4)
			if !ok || !usable(ep) {
				continue
			}
			x := endpoint{
				at: netip.AddrPortFrom(addr, number), leaving: !isTrue(ep.Conditions.Ready, true),
				onNode: onNode(ep, c.node.Name),
			}
			x.nodes, x.zones = hints(ep)
			out.all = append(out.all, x)
		}
	}
	return out
}

// count is how many endpoints there are at most.
func (c *compiler) count() int {
	n := 0
	for _, slice := range c.slices {
		n += len(slice.Endpoints)
	}
	return n
}

func usable(ep discoveryv1.Endpoint) bool {
	return isTrue(ep.Conditions.Ready, true) || isTrue(ep.Conditions.Serving, false) && isTrue(ep.Conditions.Terminating, false)
}

func onNode(ep discoveryv1.Endpoint, node string) bool {
	return ep.NodeName != nil && *ep.NodeName == node
}

func hints(ep discoveryv1.Endpoint) (nodes, zones []string) {
	if ep.Hints == nil {
		return nil, nil
	}
	for _, n := range ep.Hints.ForNodes {
		nodes = append(nodes, n.Name)
	}
	for _, z := range ep.Hints.ForZones {
		zones = append(zones, z.Name)
	}
	return nodes, zones
}

func (c *compiler) endpointAddr(slice *discoveryv1.EndpointSlice, ep discoveryv1.Endpoint, is4 bool) (netip.Addr, bool) {
	if len(ep.Addresses) == 0 {
		return netip.Addr{}, false
	}
	// All addresses of an endpoint are the same endpoint; the API says to use the first.
	a, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || a.Is4() != is4 {
		c.problem("EndpointSlice %s: %q is not an %s address", slice.Name, ep.Addresses[0], slice.AddressType)
		return netip.Addr{}, false
	}
	return a, true
}

func slicePort(slice *discoveryv1.EndpointSlice, port corev1.ServicePort) uint16 {
	want := port.Protocol
	if want == "" {
		want = corev1.ProtocolTCP
	}
	for _, p := range slice.Ports {
		proto := corev1.ProtocolTCP
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name == port.Name && proto == want && p.Port != nil {
			return uint16(*p.Port)
		}
	}
	return 0
}

func isTrue(b *bool, missing bool) bool {
	if b == nil {
		return missing
	}
	return *b
}

// LocalReady counts the ready endpoints of a Service on a node.
func LocalReady(endpointSlices []*discoveryv1.EndpointSlice, node string) int {
	found := map[string]bool{}
	for _, slice := range endpointSlices {
		for _, ep := range slice.Endpoints {
			if len(ep.Addresses) > 0 && onNode(ep, node) && isTrue(ep.Conditions.Ready, true) {
				found[ep.Addresses[0]] = true
			}
		}
	}
	return len(found)
}
