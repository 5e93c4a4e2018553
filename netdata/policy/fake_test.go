package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// fakeTable holds rows, and judges packets by them the way bpf/src/policy.h does.
type fakeTable struct {
	rules      map[tables.PolicyRule]bool
	peers      map[netip.Prefix]uint32
	identities map[netip.Addr]uint32
	revision   int
	writes     int
	fail       error // of every write, while it is set
	// check is called after every single write: what is half done is in force.
	check func(what string)
}

func newFakeTable() *fakeTable {
	return &fakeTable{
		rules: map[tables.PolicyRule]bool{}, peers: map[netip.Prefix]uint32{},
		identities: map[netip.Addr]uint32{}, check: func(string) {},
	}
}

func (f *fakeTable) write(what string) error {
	if f.fail != nil {
		return f.fail
	}
	f.writes++
	f.check(what)
	return nil
}

func (f *fakeTable) PolicyRules() ([]tables.PolicyRule, error) {
	return slices.Collect(maps.Keys(f.rules)), nil
}

func (f *fakeTable) PutPolicyRules(rules []tables.PolicyRule) error {
	for _, r := range rules {
		if err := f.write("put rule"); err != nil {
			return err
		}
		f.rules[r] = true
	}
	return nil
}

func (f *fakeTable) DeletePolicyRules(rules []tables.PolicyRule) error {
	for _, r := range rules {
		if err := f.write("delete rule"); err != nil {
			return err
		}
		delete(f.rules, r)
	}
	return nil
}

func (f *fakeTable) PolicyPeers() (map[netip.Prefix]uint32, error) { return maps.Clone(f.peers), nil }

func (f *fakeTable) PutPolicyPeers(peers []tables.PolicyPeer) error {
	for _, p := range peers {
		if err := f.write("put peer"); err != nil {
			return err
		}
		f.peers[p.Prefix] = p.Number
	}
	return nil
}

func (f *fakeTable) DeletePolicyPeers(peers []netip.Prefix) error {
	for _, p := range peers {
		if err := f.write("delete peer"); err != nil {
			return err
		}
		delete(f.peers, p)
	}
	return nil
}

func (f *fakeTable) Endpoints() ([]tables.Endpoint, error) {
	var out []tables.Endpoint
	for a, identity := range f.identities {
		out = append(out, tables.Endpoint{Addr: a, Identity: identity})
	}
	return out, nil
}

func (f *fakeTable) SetIdentity(a netip.Addr, identity uint32) (bool, error) {
	if _, connected := f.identities[a]; !connected {
		return false, nil
	}
	if err := f.write("set identity"); err != nil {
		return false, err
	}
	f.identities[a] = identity
	return true, nil
}

func (f *fakeTable) NextPolicyRevision() error {
	if err := f.write("next revision"); err != nil {
		return err
	}
	f.revision++
	return nil
}

// packet is what is judged.
type packet struct {
	from, to netip.Addr
	proto    tables.Protocol
	port     uint16
}

func (p packet) String() string { return fmt.Sprintf("%s -> %s %s/%d", p.from, p.to, p.proto, p.port) }

func (f *fakeTable) allowed(p packet) bool { return p.from == p.to || f.ends(p) == [2]bool{true, true} }

// ends is what the sender says, and the receiver.
func (f *fakeTable) ends(p packet) [2]bool {
	return [2]bool{!f.denies(p.from, tables.IsolatedEgress, p.to, p), !f.denies(p.to, tables.IsolatedIngress, p.from, p)}
}

func (f *fakeTable) denies(subject netip.Addr, direction uint32, peer netip.Addr, p packet) bool {
	identity := f.identities[subject]
	if identity&direction == 0 {
		return false
	}
	number := identity&tables.SubjectMax | direction
	return !f.holds(number, 0, p) && !f.holds(number, f.number(peer), p)
}

// number is the longest prefix match of the peers table.
func (f *fakeTable) number(a netip.Addr) uint32 {
	for bits := a.BitLen(); bits >= 0; bits-- {
		prefix, _ := a.Prefix(bits)
		if n, found := f.peers[prefix]; found {
			return n
		}
	}
	return 0
}

func (f *fakeTable) holds(subject, peer uint32, p packet) bool {
	if f.rules[tables.PolicyRule{Subject: subject, Peer: peer}] {
		return true
	}
	for bits := range 17 {
		port := p.port & uint16(0xffff<<(16-bits))
		if f.rules[tables.PolicyRule{Subject: subject, Peer: peer, Proto: p.proto, Port: port, PortBits: uint8(bits)}] {
			return true
		}
	}
	return false
}

// dump is what the programs would find.
func (f *fakeTable) dump() string {
	var lines []string
	for a, identity := range f.identities {
		var isolated []string
		if identity&tables.IsolatedIngress != 0 {
			isolated = append(isolated, "ingress")
		}
		if identity&tables.IsolatedEgress != 0 {
			isolated = append(isolated, "egress")
		}
		line := "pod " + a.String() + " free"
		if len(isolated) > 0 {
			line = fmt.Sprintf("pod %s subject %d %s", a, identity&tables.SubjectMax, strings.Join(isolated, ","))
		}
		lines = append(lines, line)
	}
	for p, n := range f.peers {
		lines = append(lines, fmt.Sprintf("peer %s is %d", p, n))
	}
	for r := range f.rules {
		lines = append(lines, describe(r))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func describe(r tables.PolicyRule) string {
	way, peer, what := "ingress of", "anybody", "everything"
	if r.Subject&tables.IsolatedEgress != 0 {
		way = "egress of"
	}
	if r.Peer != 0 {
		peer = fmt.Sprint(r.Peer)
	}
	switch {
	case r.Proto != 0 && r.PortBits == 0:
		what = r.Proto.String()
	case r.Proto != 0 && r.PortBits == 16:
		what = fmt.Sprintf("%s %d", r.Proto, r.Port)
	case r.Proto != 0:
		what = fmt.Sprintf("%s %d-%d", r.Proto, r.Port, uint32(r.Port)+1<<(16-r.PortBits)-1)
	}
	return fmt.Sprintf("rule %s %d: %s, %s", way, r.Subject&tables.SubjectMax, peer, what)
}
