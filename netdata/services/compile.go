package services

import (
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
	// Zone is the node's topology zone, "" if it has none.
	Zone string
	// IPs are the node's addresses, one of each family that it has.
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
	Flags    maps.ServiceFlags
	// Affinity is the session affinity timeout in seconds, 0 for none.
	Affinity uint32
	// Sources are the clients that may use it, if Flags has ServiceSourceRanges.
	Sources []netip.Prefix
	// Backends is sorted and free of duplicates. Empty means that connections
	// are refused, or dropped with ServiceDropEmpty.
	Backends []netip.AddrPort
}

// Compile returns the rows of a Service. What cannot be served is left out and
// named in the problems, which are for the Service's status; the rest is served.
func Compile(svc *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice, node Node) ([]Row, []error) {
	if !balanced(svc) {
		return nil, nil
	}
	c := compiler{svc: svc, slices: endpointSlices, node: node, affinity: affinitySeconds(svc)}
	addrs := c.addresses()
	for _, port := range svc.Spec.Ports {
		c.port(port, addrs)
	}
	return c.rows, c.problems
}

// serviceProxyName is the label by which a Service is left to another proxy, whatever its value.
const serviceProxyName = "service.kubernetes.io/service-proxy-name"

// foreign says by an object's labels that it is somebody else's. Proxies leave Services that have one of
// them alone, and EndpointSlices, too: those of headless Services have the second.
func foreign(labels map[string]string) bool {
	_, otherProxy := labels[serviceProxyName]
	_, headless := labels[corev1.IsHeadlessService]
	return otherProxy || headless
}

// balanced: the others are a matter of DNS alone, or of somebody else.
func balanced(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName && svc.Spec.ClusterIP != corev1.ClusterIPNone && !foreign(svc.Labels)
}

type compiler struct {
	svc      *corev1.Service
	slices   []*discoveryv1.EndpointSlice
	node     Node
	affinity uint32
	rows     []Row
	problems []error
}

// problem notes a problem once, however many ports or addresses meet it.
func (c *compiler) problem(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(c.problems, func(e error) bool { return e.Error() == err.Error() }) {
		c.problems = append(c.problems, err)
	}
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

// addresses of a Service, by what is special about them.
type addresses struct {
	cluster  []netip.Addr
	external []netip.Addr
	balancer []netip.Addr // external as well, but open to Sources only
	node     []netip.Addr // the unspecified address of each family that node ports are in
}

func (c *compiler) addresses() addresses {
	a := addresses{
		cluster:  c.parse("clusterIP", c.clusterIPs()),
		external: c.parse("external address", c.svc.Spec.ExternalIPs),
		balancer: c.parse("load balancer address", c.balancerIPs()),
	}
	for _, ip := range a.cluster {
		every := netip.IPv6Unspecified()
		if ip.Is4() {
			every = netip.IPv4Unspecified()
		}
		a.node = append(a.node, every)
	}
	a.cluster = slices.DeleteFunc(a.cluster, func(ip netip.Addr) bool { return slices.Contains(c.node.ClusterDNS, ip) })
	return a
}

func (c *compiler) clusterIPs() []string {
	if len(c.svc.Spec.ClusterIPs) == 0 && c.svc.Spec.ClusterIP != "" {
		return []string{c.svc.Spec.ClusterIP}
	}
	return c.svc.Spec.ClusterIPs
}

// balancerIPs leaves out addresses whose traffic does not arrive under them.
func (c *compiler) balancerIPs() []string {
	var ips []string
	if c.svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for _, in := range c.svc.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			ips = append(ips, in.IP)
		}
	}
	return ips
}

// parse leaves out addresses of a family that the node does not have: nobody on it could use
// them.
func (c *compiler) parse(what string, ips []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ips {
		a, err := netip.ParseAddr(s)
		if err != nil {
			c.problem("%s: %w", what, err)
			continue
		}
		if a = a.Unmap(); c.node.has(a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

var protocols = map[corev1.Protocol]maps.Protocol{
	"": maps.TCP, corev1.ProtocolTCP: maps.TCP, corev1.ProtocolUDP: maps.UDP, corev1.ProtocolSCTP: maps.SCTP,
}

func (c *compiler) port(port corev1.ServicePort, addrs addresses) {
	proto, known := protocols[port.Protocol]
	if !known {
		c.problem("port %q: protocol %q is not one of TCP, UDP and SCTP", portName(port), port.Protocol)
		return
	}
	at := func(a netip.Addr, number int32) maps.Frontend {
		return maps.Frontend{Addr: netip.AddrPortFrom(a, uint16(number)), Proto: proto}
	}
	for _, a := range addrs.cluster {
		c.internal(at(a, port.Port), c.endpoints(port, a.Is4()))
	}
	for _, a := range addrs.external {
		c.external(Row{Frontend: at(a, port.Port)}, c.endpoints(port, a.Is4()))
	}
	for _, a := range addrs.balancer {
		c.external(c.limited(at(a, port.Port)), c.endpoints(port, a.Is4()))
	}
	if port.NodePort == 0 {
		return
	}
	for _, a := range addrs.node {
		c.external(Row{Frontend: at(a, port.NodePort)}, c.endpoints(port, a.Is4()))
	}
}

func portName(p corev1.ServicePort) string {
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprint(p.Port)
}

// internal adds the row of a cluster IP.
func (c *compiler) internal(f maps.Frontend, e endpoints) {
	row := Row{Frontend: f, Affinity: c.affinity, Backends: e.cluster()}
	if p := c.svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		row.Flags, row.Backends = e.local()
	}
	c.rows = append(c.rows, row)
}

// external adds the row of an address that clients outside the cluster use as well. With a
// local policy they have a row of their own, which is written first: the other one says that it
// is there. Pods and the node itself are not what the policy is for.
func (c *compiler) external(row Row, e endpoints) {
	row.Affinity = c.affinity
	if c.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		outside := row
		outside.Frontend.Outside = true
		flags, backends := e.local()
		outside.Flags, outside.Backends = outside.Flags|flags, backends
		c.rows = append(c.rows, outside)
		row.Flags |= maps.ServiceOutsideView
	}
	row.Backends = e.cluster()
	c.rows = append(c.rows, row)
}

// limited is a row with the source ranges of the Service. If none is of the address's family,
// nobody is let in.
func (c *compiler) limited(f maps.Frontend) Row {
	row := Row{Frontend: f}
	for _, s := range c.svc.Spec.LoadBalancerSourceRanges {
		row.Flags |= maps.ServiceSourceRanges
		p, err := netip.ParsePrefix(s)
		if err != nil {
			c.problem("loadBalancerSourceRanges: %w", err)
			continue
		}
		if p.Addr().Is4() == f.Addr.Addr().Is4() {
			row.Sources = append(row.Sources, p.Masked())
		}
	}
	return row
}
