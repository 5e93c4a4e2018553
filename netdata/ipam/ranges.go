package ipam

import "net/netip"

// Ranges are the pools of a node's pod ranges, one per address family.
type Ranges []*Pool

// NewRanges returns a pool for each prefix.
func NewRanges(prefixes []netip.Prefix) (Ranges, error) {
	var out Ranges
	for _, prefix := range prefixes {
		p, err := New(prefix)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Allocate gives out an address of each range, in their order, or none.
func (r Ranges) Allocate() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, p := range r {
		a, err := p.Allocate()
		if err != nil {
			r.Release(out)
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// Claim marks addresses as in use, as found at start.
func (r Ranges) Claim(addrs []netip.Addr) {
	r.each(addrs, (*Pool).Claim)
}

// Release gives addresses back. Those that are not in use are left alone.
func (r Ranges) Release(addrs []netip.Addr) {
	r.each(addrs, (*Pool).Release)
}

func (r Ranges) each(addrs []netip.Addr, do func(*Pool, netip.Addr)) {
	for _, p := range r {
		for _, a := range addrs {
			if a.Is4() == p.prefix.Addr().Is4() {
				do(p, a)
			}
		}
	}
}
