package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	netutils "k8s.io/utils/net"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Policy is a NetworkPolicy, read.
type Policy struct {
	Namespace, Name string
	// Problems are what could not be read. It allows nothing.
	Problems []error

	uid      types.UID
	version  string
	selector labels.Selector
	isolates [2]bool // by direction
	rules    [2][]rule
}

// direction is an index.
type direction int

const (
	ingress direction = iota
	egress
)

// rule allows its ports from or to its peers.
type rule struct {
	anybody bool // no peers are named, which is everybody
	terms   []*term
	allPort bool // no ports are named, which is every protocol
	ports   []port
}

// port is a range of one protocol, all its ports when first is 0, or a name.
type port struct {
	proto       maps.Protocol
	first, last uint16
	name        string
}

// term is one way to name peers. Terms with the same key match the same.
type term struct {
	key string

	// Pods: those of namespace, or of namespaces that inNamespaces selects.
	pods         labels.Selector // nil for a block
	namespace    string
	inNamespaces labels.Selector

	block  netip.Prefix
	except []netip.Prefix
}

// NewPolicy reads a NetworkPolicy. What cannot be read allows nothing and is a problem.
func NewPolicy(in *networkingv1.NetworkPolicy) *Policy {
	p := &Policy{Namespace: in.Namespace, Name: in.Name, uid: in.UID, version: in.ResourceVersion}
	selector, err := metav1.LabelSelectorAsSelector(&in.Spec.PodSelector)
	if err != nil {
		// The API server lets no such object in. Isolating nobody would be the worse mistake.
		p.problem("podSelector: %w; every pod of the namespace is isolated", err)
		selector = labels.Everything()
	}
	p.selector = selector
	p.isolates[ingress], p.isolates[egress] = directions(in)
	for i, r := range in.Spec.Ingress {
		p.rules[ingress] = append(p.rules[ingress], p.rule(fmt.Sprintf("ingress[%d]", i), r.Ports, r.From))
	}
	for i, r := range in.Spec.Egress {
		p.rules[egress] = append(p.rules[egress], p.rule(fmt.Sprintf("egress[%d]", i), r.Ports, r.To))
	}
	return p
}

// olderThan compares two states of what may be one object. Versions that cannot be compared say
// nothing.
func (p *Policy) olderThan(in *networkingv1.NetworkPolicy) bool {
	if p.uid != in.UID {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(p.version, in.ResourceVersion)
	return err != nil || order < 0
}

func (p *Policy) key() string { return p.Namespace + "/" + p.Name }

func (p *Policy) problem(format string, args ...any) {
	p.Problems = append(p.Problems, fmt.Errorf(format, args...))
}

// directions: without policyTypes a policy isolates for ingress, and for egress if it has
// egress rules.
func directions(in *networkingv1.NetworkPolicy) (bool, bool) {
	types := in.Spec.PolicyTypes
	if len(types) == 0 {
		return true, len(in.Spec.Egress) > 0
	}
	return slices.Contains(types, networkingv1.PolicyTypeIngress), slices.Contains(types, networkingv1.PolicyTypeEgress)
}

func (p *Policy) rule(where string, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) rule {
	r := rule{anybody: len(peers) == 0, allPort: len(ports) == 0}
	for i, in := range ports {
		out, err := parsePort(in)
		if err != nil {
			p.problem("%s.ports[%d]: %w", where, i, err)
			continue
		}
		r.ports = append(r.ports, out)
	}
	for i, in := range peers {
		t, err := p.term(in)
		if err != nil {
			p.problem("%s.peers[%d]: %w", where, i, err)
			continue
		}
		r.terms = append(r.terms, t)
	}
	return r
}

func parsePort(in networkingv1.NetworkPolicyPort) (port, error) {
	proto, ok := protocol(in.Protocol)
	switch {
	case !ok:
		return port{}, fmt.Errorf("protocol %q is not TCP, UDP or SCTP", *in.Protocol)
	case in.Port == nil:
		if in.EndPort != nil {
			return port{}, fmt.Errorf("endPort %d without port", *in.EndPort)
		}
		return port{proto: proto}, nil
	case in.Port.StrVal != "":
		if in.EndPort != nil {
			return port{}, fmt.Errorf("endPort %d with the named port %q", *in.EndPort, in.Port.StrVal)
		}
		return port{proto: proto, name: in.Port.StrVal}, nil
	}
	first, last := in.Port.IntVal, in.Port.IntVal
	if in.EndPort != nil {
		last = *in.EndPort
	}
	if first < 1 || last < first || last > 65535 {
		return port{}, fmt.Errorf("ports %d to %d are no range within 1 to 65535", first, last)
	}
	return port{proto: proto, first: uint16(first), last: uint16(last)}, nil
}

func (p *Policy) term(in networkingv1.NetworkPolicyPeer) (*term, error) {
	if in.IPBlock != nil {
		return blockTerm(in.IPBlock)
	}
	if in.PodSelector == nil && in.NamespaceSelector == nil {
		return nil, fmt.Errorf("names no peer: one of podSelector, namespaceSelector and ipBlock is needed")
	}
	t := &term{pods: labels.Everything(), namespace: p.Namespace}
	var err error
	if in.PodSelector != nil {
		if t.pods, err = metav1.LabelSelectorAsSelector(in.PodSelector); err != nil {
			return nil, fmt.Errorf("podSelector: %w", err)
		}
	}
	where := "namespace " + p.Namespace
	if in.NamespaceSelector != nil {
		if t.inNamespaces, err = metav1.LabelSelectorAsSelector(in.NamespaceSelector); err != nil {
			return nil, fmt.Errorf("namespaceSelector: %w", err)
		}
		where = "namespaces {" + t.inNamespaces.String() + "}"
	}
	t.key = "pods {" + t.pods.String() + "} in " + where
	return t, nil
}

func blockTerm(in *networkingv1.IPBlock) (*term, error) {
	block, err := parseCIDR(in.CIDR)
	if err != nil {
		return nil, fmt.Errorf("ipBlock.cidr: %w", err)
	}
	t := &term{block: block, key: "block " + block.String()}
	var names []string
	for i, s := range in.Except {
		e, err := parseCIDR(s)
		if err != nil {
			return nil, fmt.Errorf("ipBlock.except[%d]: %w", i, err)
		}
		t.except = append(t.except, e)
		names = append(names, e.String())
	}
	if len(names) > 0 {
		slices.Sort(names)
		t.key += " except " + strings.Join(names, " ")
	}
	return t, nil
}

// parseCIDR takes what the API server takes: old objects may have leading zeros and
// bits behind the prefix.
func parseCIDR(s string) (netip.Prefix, error) {
	_, n, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits).Masked(), nil
}

func (t *term) matchesPod(p *Pod, namespaces map[string]labels.Set) bool {
	if t.pods == nil {
		return false
	}
	if t.inNamespaces == nil {
		if p.Namespace != t.namespace {
			return false
		}
	} else {
		ns, known := namespaces[p.Namespace]
		if !known || !t.inNamespaces.Matches(ns) {
			return false
		}
	}
	return t.pods.Matches(p.Labels)
}

// holds says whether all of the prefix is in the block. The prefix must not be larger than
// an exception it overlaps.
func (t *term) holds(p netip.Prefix) bool {
	if t.pods != nil || !covers(t.block, p) {
		return false
	}
	return !slices.ContainsFunc(t.except, func(e netip.Prefix) bool { return covers(e, p) })
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// selects says whether the policy is about the pod.
func (p *Policy) selects(pod *Pod) bool {
	return pod.Namespace == p.Namespace && p.selector.Matches(pod.Labels)
}
