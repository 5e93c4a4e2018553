package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Node is what compiling needs to know of the node.
type Node struct {
	Name string
	// IPs are where node ports listen, one of each family that the node has.
	IPs []netip.Addr
	// ClusterDNS are served by the node itself: they get no rows.
	ClusterDNS []netip.Addr
}

// has says whether the node has the family of an address.
func (n Node) has(a netip.Addr) bool {
	return slices.ContainsFunc(n.IPs, func(ip netip.Addr) bool { return ip.Is4() == a.Is4() })
}

// Row is one frontend and who is behind it.
type Row struct {
	Frontend maps.Frontend
	// Affinity is the session affinity timeout in seconds, 0 for none.
	Affinity uint32
	// Backends is sorted and free of duplicates. Empty means that connections
	// are refused.
	Backends []netip.AddrPort
}

// Compile returns the rows of a Service. What cannot be served is left out and
// named in the problems, which are for the Service's status; the rest is served.
func Compile(svc *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice, node Node) ([]Row, []error) {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil, nil
	}
	c := compiler{svc: svc, slices: endpointSlices, node: node, affinity: affinitySeconds(svc)}
	for _, port := range svc.Spec.Ports {
		c.port(port)
	}
	return c.rows, c.problems
}

type compiler struct {
	svc      *corev1.Service
	slices   []*discoveryv1.EndpointSlice
	node     Node
	affinity uint32
	rows     []Row
	problems []error
}

func affinitySeconds(svc *corev1.Service) uint32 {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

func (c *compiler) port(port corev1.ServicePort) {
	var proto maps.Protocol
	switch port.Protocol {
	case corev1.ProtocolTCP, "":
		proto = maps.TCP
	case corev1.ProtocolUDP:
		proto = maps.UDP
	default:
		c.problems = append(c.problems, fmt.Errorf("port %q: %s services are not balanced yet", portName(port), port.Protocol))
		return
	}
	add := func(addrs []netip.Addr, number int32, localOnly bool) {
		for _, a := range addrs {
			f := maps.Frontend{Addr: netip.AddrPortFrom(a, uint16(number)), Proto: proto}
			c.rows = append(c.rows, Row{Frontend: f, Affinity: c.affinity, Backends: c.backends(port, f.Family(), localOnly)})
		}
	}
	internal := c.svc.Spec.InternalTrafficPolicy != nil && *c.svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	external := c.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	add(c.clusterIPs(), port.Port, internal)
	add(c.externalIPs(), port.Port, external)
	if port.NodePort != 0 {
		add(c.nodeIPs(), port.NodePort, external)
	}
}

// nodeIPs are the node's addresses of the families that the Service has.
func (c *compiler) nodeIPs() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(c.node.IPs), func(ip netip.Addr) bool {
		return !slices.ContainsFunc(c.allClusterIPs(), func(a netip.Addr) bool { return a.Is4() == ip.Is4() })
	})
}

func portName(p corev1.ServicePort) string {
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprint(p.Port)
}

func (c *compiler) clusterIPs() []netip.Addr {
	return slices.DeleteFunc(c.allClusterIPs(), func(a netip.Addr) bool { return slices.Contains(c.node.ClusterDNS, a) })
}

// allClusterIPs leaves out those of a family that the node does not have: nobody on it could
// use them.
func (c *compiler) allClusterIPs() []netip.Addr {
	ips := c.svc.Spec.ClusterIPs
	if len(ips) == 0 && c.svc.Spec.ClusterIP != "" {
		ips = []string{c.svc.Spec.ClusterIP}
	}
	return slices.DeleteFunc(c.addresses("clusterIP", ips), func(a netip.Addr) bool { return !c.node.has(a) })
}

func (c *compiler) externalIPs() []netip.Addr {
	ips := slices.Clone(c.svc.Spec.ExternalIPs)
	for _, in := range c.svc.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			ips = append(ips, in.IP)
		}
	}
	return slices.DeleteFunc(c.addresses("external address", ips), func(a netip.Addr) bool { return !c.node.has(a) })
}

func (c *compiler) addresses(what string, ips []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ips {
		a, err := netip.ParseAddr(s)
		if err != nil {
			c.addProblem(fmt.Errorf("%s: %w", what, err))
			continue
		}
		if a = a.Unmap(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// addProblem notes a problem once, however many ports or addresses meet it.
func (c *compiler) addProblem(err error) {
	if !slices.ContainsFunc(c.problems, func(e error) bool { return e.Error() == err.Error() }) {
		c.problems = append(c.problems, err)
	}
}

// addressType is a family in the words of EndpointSlices.
func addressType(f maps.Family) discoveryv1.AddressType {
	if f == maps.IPv6 {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}

// backends lists who serves the port in a family: the ready endpoints or, when there is none,
// those that are terminating but still serve. With localOnly only this node's count.
func (c *compiler) backends(port corev1.ServicePort, family maps.Family, localOnly bool) []netip.AddrPort {
	var ready, leaving []netip.AddrPort
	for _, slice := range c.slices {
		if slice.AddressType != addressType(family) {
			continue
		}
		number := slicePort(slice, port)
		if number == 0 {
			continue
		}
		for _, ep := range slice.Endpoints {
			if localOnly && (ep.NodeName == nil || *ep.NodeName != c.node.Name) {
				continue
			}
			addr, ok := c.endpointAddr(slice, ep)
			if !ok {
				continue
			}
			switch b := netip.AddrPortFrom(addr, number); {
			case isTrue(ep.Conditions.Ready, true):
				ready = append(ready, b)
			case isTrue(ep.Conditions.Serving, false) && isTrue(ep.Conditions.Terminating, false):
				leaving = append(leaving, b)
			}
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	return slices.Compact(ready)
}

func (c *compiler) endpointAddr(slice *discoveryv1.EndpointSlice, ep discoveryv1.Endpoint) (netip.Addr, bool) {
	if len(ep.Addresses) == 0 {
		return netip.Addr{}, false
	}
	// All addresses of an endpoint are the same endpoint; the API says to use the first.
	a, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || slice.AddressType != addressType(maps.FamilyOf(a)) {
		c.addProblem(fmt.Errorf("EndpointSlice %s: %q is not an %s address", slice.Name, ep.Addresses[0], slice.AddressType))
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
