package policy

import (
	"net/netip"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Allows says of a flow that runs from t.Src to t.Dst, the real ends, what the programs say of its first
// packet when the plan is in force: bpf/src/policy.h asks the tables the same questions. Whom policy has no
// say about, the node itself above all, the plan does not know.
func (p *Plan) Allows(t tables.Tuple) bool {
	from, to := t.Src.Addr(), t.Dst.Addr()
	return from == to || !p.denies(from, tables.IsolatedEgress, to, t) && !p.denies(to, tables.IsolatedIngress, from, t)
}

func (p *Plan) denies(subject netip.Addr, direction uint32, peer netip.Addr, t tables.Tuple) bool {
	identity := p.Identities[subject]
	if identity&direction == 0 {
		return false
	}
	number := identity&tables.SubjectMax | direction
	return !p.holds(number, 0, t) && !p.holds(number, p.peer(peer), t)
}

// peer is the number of the longest prefix around an address, 0 if there is none.
func (p *Plan) peer(a netip.Addr) uint32 {
	for bits := a.BitLen(); bits >= 0; bits-- {
		prefix, _ := a.Prefix(bits) // the length is one of the address's family
		if number, found := p.Peers[prefix]; found {
			return number
		}
	}
	return 0
}

func (p *Plan) holds(subject, peer uint32, t tables.Tuple) bool {
	rule := tables.PolicyRule{Subject: subject, Peer: peer}
	if p.Rules[rule] {
		return true
	}
	for bits := range uint8(17) {
		rule.Proto, rule.Port, rule.PortBits = t.Proto, t.Dst.Port()&uint16(0xffff<<(16-bits)), bits
		if p.Rules[rule] {
			return true
		}
	}
	return false
}
