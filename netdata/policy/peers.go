package policy

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// class is what peers have in common that the policies in question cannot tell apart.
type class struct {
	number uint32
	ports  map[PortName]uint16 // those that egress rules name
}

// classes finds them by what rules say.
type classes struct {
	byTerm map[string][]*class
	byName map[PortName][]*class
}

// peerFinder gives addresses their classes.
type peerFinder struct {
	*compiler
	pods   []*term // terms that select pods
	blocks []*term
	names  map[PortName]bool // ports that egress rules name

	bySignature map[string]*class
	byGroup     map[string]traits
	// Blocks and exceptions are the only borders: an address belongs to the smallest of
	// them it is in.
	byBlock map[netip.Prefix]traits
	lengths map[bool][]int // of the prefixes in byBlock, longest first, by "is IPv4"
}

// traits are what decides about a class.
type traits struct {
	terms []string
	ports map[PortName]uint16
}

// findPeers numbers every address that a rule of the plan's subjects speaks of.
func (c *compiler) findPeers() error {
	f := peerFinder{
		compiler: c, names: map[PortName]bool{}, bySignature: map[string]*class{},
		byGroup: map[string]traits{}, byBlock: map[netip.Prefix]traits{}, lengths: map[bool][]int{},
	}
	c.classes = classes{byTerm: map[string][]*class{}, byName: map[PortName][]*class{}}
	f.collectTerms()
	f.collectBlocks()
	for _, p := range slices.SortedFunc(maps.Keys(f.byBlock), comparePrefix) {
		number, err := f.number(f.byBlock[p])
		if err != nil {
			return err
		}
		f.plan.Peers[p] = number
	}
	return f.numberPods()
}

func (f *peerFinder) collectTerms() {
	seen := map[string]bool{}
	for _, s := range f.subjects {
		for dir := range directionBits {
			for _, p := range s.policies[dir] {
				f.collectRules(p.rules[dir], direction(dir), seen)
			}
		}
	}
	byKey := func(a, b *term) int { return strings.Compare(a.key, b.key) }
	slices.SortFunc(f.pods, byKey)
	slices.SortFunc(f.blocks, byKey)
}

func (f *peerFinder) collectRules(rules []rule, dir direction, seen map[string]bool) {
	for _, r := range rules {
		for _, t := range r.terms {
			if seen[t.key] {
				continue
			}
			seen[t.key] = true
			if t.pods != nil {
				f.pods = append(f.pods, t)
			} else {
				f.blocks = append(f.blocks, t)
			}
		}
		for _, p := range r.ports {
			if dir == egress && p.name != "" {
				f.names[PortName{p.name, p.proto}] = true
			}
		}
	}
}

func (f *peerFinder) collectBlocks() {
	for _, t := range f.blocks {
		for _, p := range append([]netip.Prefix{t.block}, t.except...) {
			f.byBlock[p] = traits{}
		}
	}
	for p := range f.byBlock {
		var held []string
		for _, t := range f.blocks {
			if t.holds(p) {
				held = append(held, t.key)
			}
		}
		f.byBlock[p] = traits{terms: held}
		if is4 := p.Addr().Is4(); !slices.Contains(f.lengths[is4], p.Bits()) {
			f.lengths[is4] = append(f.lengths[is4], p.Bits())
		}
	}
	for _, l := range f.lengths {
		slices.Sort(l)
		slices.Reverse(l)
	}
}

// numberPods gives those addresses a row of their own that differ from the block around them.
func (f *peerFinder) numberPods() error {
	owners := f.owners()
	for _, addr := range slices.SortedFunc(maps.Keys(owners), netip.Addr.Compare) {
		around := f.around(addr)
		block := f.byBlock[around]
		own := f.group(owners[addr])
		number, err := f.number(traits{terms: slices.Concat(block.terms, own.terms), ports: own.ports})
		if err != nil {
			return err
		}
		if number != f.plan.Peers[around] {
			f.plan.Peers[netip.PrefixFrom(addr, addr.BitLen())] = number
		}
	}
	return nil
}

// owners says whose an address is. Those of this node's pods are what they were given, whatever
// the API knows; of several pods elsewhere that claim one, the last to come has it.
func (f *peerFinder) owners() map[netip.Addr]*Pod {
	out := map[netip.Addr]*Pod{}
	for _, p := range f.world.Pods {
		if p.Node == f.world.Node {
			continue
		}
		for _, a := range p.Addrs {
			if other := out[a]; other == nil || newer(p, other) {
				out[a] = p
			}
		}
	}
	for a, p := range f.world.Local {
		if p != nil {
			out[a] = p
		} else {
			delete(out, a)
		}
	}
	return out
}

func newer(a, b *Pod) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.Namespace+"/"+a.Name > b.Namespace+"/"+b.Name
}

// around is the smallest block an address is in; not valid if there is none.
func (f *peerFinder) around(a netip.Addr) netip.Prefix {
	for _, bits := range f.lengths[a.Is4()] {
		p, _ := a.Prefix(bits)
		if _, found := f.byBlock[p]; found {
			return p
		}
	}
	return netip.Prefix{}
}

func (f *peerFinder) group(p *Pod) traits {
	if t, known := f.byGroup[p.group]; known {
		return t
	}
	var t traits
	for _, candidate := range f.pods {
		if candidate.matchesPod(p, f.world.Namespaces) {
			t.terms = append(t.terms, candidate.key)
		}
	}
	for name, number := range p.Ports {
		if f.names[name] {
			if t.ports == nil {
				t.ports = map[PortName]uint16{}
			}
			t.ports[name] = number
		}
	}
	f.byGroup[p.group] = t
	return t
}

// number returns that of the class with these traits, 0 if there are none.
func (f *peerFinder) number(t traits) (uint32, error) {
	if len(t.terms) == 0 && len(t.ports) == 0 {
		return 0, nil
	}
	var b strings.Builder
	for _, key := range t.terms {
		b.WriteString(key)
		b.WriteByte('\n')
	}
	writePorts(&b, t.ports)
	signature := b.String()
	if c := f.bySignature[signature]; c != nil {
		return c.number, nil
	}
	number, err := f.numbers.peers.get(signature)
	if err != nil {
		return 0, err
	}
	c := &class{number: number, ports: t.ports}
	f.bySignature[signature] = c
	f.plan.peers[signature] = true
	for _, key := range t.terms {
		f.classes.byTerm[key] = append(f.classes.byTerm[key], c)
	}
	for name := range t.ports {
		f.classes.byName[name] = append(f.classes.byName[name], c)
	}
	return number, nil
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
