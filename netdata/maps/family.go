package maps

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Family is an address family.
type Family uint8

// The families, in the order in which Tables keeps them.
const (
	IPv4 Family = iota
	IPv6
	families
)

// FamilyOf returns the family of an address. IPv4 written as IPv6 is IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// family is the maps of one family, by their names in the programs. Maps that both
// families share are in both.
type family struct {
	family Family
	byID   map[string]*ebpf.Map
}

// of returns the maps of an address's family.
func (t *Tables) of(a netip.Addr) (*family, error) {
	f := t.families[FamilyOf(a)]
	if f == nil {
		return nil, fmt.Errorf("%s: this node has no %s", a, FamilyOf(a))
	}
	return f, nil
}

// each calls do for every family of the node, and stops at the first error.
func (t *Tables) each(do func(*family) error) error {
	for _, f := range t.families {
		if f == nil {
			continue
		}
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// pick returns the instance of a generic function that is for the family.
func pick[F any](f *family, four, six F) F {
	if f.family == IPv6 {
		return six
	}
	return four
}
