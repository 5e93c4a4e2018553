package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Plan is what the tables should hold.
type Plan struct {
	Rules map[tables.PolicyRule]bool
	Peers map[netip.Prefix]uint32
	// Identities are those of this node's pods, 0 among them.
	Identities map[netip.Addr]uint32

	// What has a number in this plan, by the names it has in [Numbers].
	subjects, peers map[string]bool
}

// Numbers are what plans call subjects and peers. They outlive a plan.
type Numbers struct {
	subjects, peers *numbers
}

// Compile says what the tables should hold. The only error is that there are more subjects or
// peers than numbers.
func Compile(w *World, n *Numbers) (*Plan, error) {
	c := compiler{world: w, numbers: n, plan: &Plan{
		Rules: map[tables.PolicyRule]bool{}, Peers: map[netip.Prefix]uint32{}, Identities: map[netip.Addr]uint32{},
		subjects: map[string]bool{}, peers: map[string]bool{},
	}}
	if err := c.findSubjects(); err != nil {
		return nil, err
	}
	if len(c.subjects) == 0 {
		return c.plan, nil
	}
	if err := c.findPeers(); err != nil {
		return nil, err
	}
	for _, s := range c.subjects {
		c.allow(s)
	}
	return c.plan, nil
}

type compiler struct {
	world    *World
	numbers  *Numbers
	plan     *Plan
	subjects []*subject
	classes  classes
}

// subject is what pods of this node have in common that the same policies select.
type subject struct {
	number   uint32
	policies [2][]*Policy // by direction
	ports    map[PortName]uint16
}

// directionBits marks a subject's number, and an identity that is isolated.
var directionBits = [2]uint32{ingress: tables.IsolatedIngress, egress: tables.IsolatedEgress}

func (c *compiler) findSubjects() error {
	byNamespace := map[string][]*Policy{}
	for _, key := range slices.Sorted(maps.Keys(c.world.Policies)) {
		p := c.world.Policies[key]
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	identities, bySignature := map[string]uint32{}, map[string]*subject{}
	for _, addr := range slices.SortedFunc(maps.Keys(c.world.Local), netip.Addr.Compare) {
		pod := c.world.Local[addr]
		if pod == nil {
			c.plan.Identities[addr] = tables.DenyAll
			continue
		}
		identity, known := identities[pod.group]
		if !known {
			var err error
			if identity, err = c.identity(pod, byNamespace[pod.Namespace], bySignature); err != nil {
				return err
			}
			identities[pod.group] = identity
		}
		c.plan.Identities[addr] = identity
	}
	return nil
}

func (c *compiler) identity(pod *Pod, candidates []*Policy, known map[string]*subject) (uint32, error) {
	s := &subject{ports: pod.Ports}
	var isolated uint32
	var signature strings.Builder
	for dir, bit := range directionBits {
		for _, p := range candidates {
			if !p.isolates[dir] || !p.selects(pod) {
				continue
			}
			s.policies[dir] = append(s.policies[dir], p)
			isolated |= bit
			fmt.Fprintf(&signature, "%d %s\n", dir, p.key())
		}
	}
	if isolated == 0 {
		return 0, nil
	}
	writePorts(&signature, pod.Ports)
	name := signature.String()
	if known[name] == nil {
		number, err := c.numbers.subjects.get(name)
		if err != nil {
			return 0, err
		}
		s.number = number
		known[name] = s
		c.subjects = append(c.subjects, s)
		c.plan.subjects[name] = true
	}
	return isolated | known[name].number, nil
}

func writePorts(b *strings.Builder, ports map[PortName]uint16) {
	var out []string
	for name, number := range ports {
		out = append(out, fmt.Sprintf("%s/%s:%d\n", name.Name, name.Proto, number))
	}
	slices.Sort(out)
	for _, s := range out {
		b.WriteString(s)
	}
}

// allow adds the rules of a subject.
func (c *compiler) allow(s *subject) {
	for dir := range directionBits {
		for _, p := range s.policies[dir] {
			for _, r := range p.rules[dir] {
				c.allowRule(s, direction(dir), r)
			}
		}
	}
}

func (c *compiler) allowRule(s *subject, dir direction, r rule) {
	if r.anybody {
		c.allowPeer(s, dir, r, nil)
		return
	}
	for _, t := range r.terms {
		for _, peer := range c.classes.byTerm[t.key] {
			c.allowPeer(s, dir, r, peer)
		}
	}
}

// allowPeer adds a rule's ports for one class of peers, or for anybody if it is nil.
func (c *compiler) allowPeer(s *subject, dir direction, r rule, peer *class) {
	to := tables.PolicyRule{Subject: s.number | directionBits[dir]}
	if peer != nil {
		to.Peer = peer.number
	}
	if r.allPort {
		c.plan.Rules[to] = true
	}
	for _, p := range r.ports {
		switch {
		case p.name == "":
			c.allowPorts(to, p.proto, p.first, p.last)
		case dir == ingress:
			c.allowNamed(to, s.ports, p)
		case peer != nil:
			c.allowNamed(to, peer.ports, p)
		default:
			// Only a pod has names for its ports.
			for _, owner := range c.classes.byName[PortName{p.name, p.proto}] {
				to.Peer = owner.number
				c.allowNamed(to, owner.ports, p)
			}
			to.Peer = 0
		}
	}
}

func (c *compiler) allowNamed(to tables.PolicyRule, names map[PortName]uint16, p port) {
	if number := names[PortName{p.name, p.proto}]; number != 0 {
		c.allowPorts(to, p.proto, number, number)
	}
}

func (c *compiler) allowPorts(to tables.PolicyRule, proto tables.Protocol, first, last uint16) {
	for _, part := range portRange(first, last) {
		to.Proto, to.Port, to.PortBits = proto, part.port, part.bits
		c.plan.Rules[to] = true
	}
}
