package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// ErrExhausted says that every address that a Service may have is in use.
var ErrExhausted = errors.New("no address is free")

// Allocator knows who has which address. It is not safe for concurrent use.
type Allocator struct {
	pools   []pool
	holders map[netip.Addr]map[string]Request
	held    map[string][]netip.Addr
	// reserved are addresses that no Service may have, whatever the pools say.
	reserved map[netip.Addr]bool
}

type pool struct {
	spec   v1alpha1.AddressPool
	ranges []v1alpha1.AddressRange
}

// NewAllocator makes one in which nothing is in use.
func NewAllocator(specs []v1alpha1.AddressPool) (*Allocator, error) {
	a := &Allocator{holders: map[netip.Addr]map[string]Request{}, held: map[string][]netip.Addr{}}
	for _, s := range specs {
		p := pool{spec: s}
		for _, text := range s.Addresses {
			r, err := v1alpha1.ParseAddressRange(text)
			if err != nil {
				return nil, fmt.Errorf("pool %s: %w", s.Name, err)
			}
			p.ranges = append(p.ranges, r)
		}
		a.pools = append(a.pools, p)
	}
	return a, nil
}

// Reserve makes the addresses, those of nodes, ones that nobody gets.
func (a *Allocator) Reserve(addrs []netip.Addr) {
	a.reserved = map[netip.Addr]bool{}
	for _, x := range addrs {
		a.reserved[x] = true
	}
}

// Holds reports whether the address is in one of the pools.
func (a *Allocator) Holds(addr netip.Addr) bool {
	return slices.ContainsFunc(a.pools, func(p pool) bool { return p.contains(addr) })
}

// Release takes all addresses from a Service. It reports whether it had any.
func (a *Allocator) Release(service string) bool {
	had := a.held[service]
	for _, addr := range had {
		delete(a.holders[addr], service)
		if len(a.holders[addr]) == 0 {
			delete(a.holders, addr)
		}
	}
	delete(a.held, service)
	return len(had) > 0
}

// Assign gives a Service its addresses: those it has and may keep, those it asks for, or the
// first that are free. On error it has none.
func (a *Allocator) Assign(r Request) ([]netip.Addr, error) {
	a.Release(r.Service)
	for _, w := range r.Want {
		if !slices.Contains(r.Families, familyOf(w)) {
			return nil, fmt.Errorf("asks for %s, but has no cluster IP of that family", w)
		}
	}
	var got []netip.Addr
	var errs []error
	for _, f := range r.Families {
		addr, err := a.pick(r, f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got = append(got, addr)
	}
	if len(errs) > 0 && (r.AllNeeded || len(got) == 0) {
		return nil, errors.Join(errs...)
	}
	for _, addr := range got {
		if a.holders[addr] == nil {
			a.holders[addr] = map[string]Request{}
		}
		a.holders[addr][r.Service] = r
	}
	a.held[r.Service] = got
	return got, nil
}

func (a *Allocator) pick(r Request, f corev1.IPFamily) (netip.Addr, error) {
	if i := slices.IndexFunc(r.Want, func(w netip.Addr) bool { return familyOf(w) == f }); i >= 0 {
		return r.Want[i], a.check(r, r.Want[i])
	}
	for _, h := range r.Have {
		if familyOf(h) == f && a.check(r, h) == nil {
			return h, nil
		}
	}
	if shared, ok := a.shared(r, f); ok {
		return shared, nil
	}
	var asked []string
	for _, p := range a.pools {
		if !r.gets(p) || !p.has(f) {
			continue
		}
		asked = append(asked, p.spec.Name)
		if addr, ok := a.free(p, f); ok {
			return addr, nil
		}
	}
	if len(asked) == 0 {
		return netip.Addr{}, fmt.Errorf("no pool with %s addresses is open to it", f)
	}
	return netip.Addr{}, fmt.Errorf("%w in the pools with %s addresses (%s); give them more in the Cluster, or delete a Service",
		ErrExhausted, f, strings.Join(asked, ", "))
}

// check says why a Service may not have an address.
func (a *Allocator) check(r Request, addr netip.Addr) error {
	if a.reserved[addr] {
		return fmt.Errorf("%s is the address of a node", addr)
	}
	if !slices.ContainsFunc(a.pools, func(p pool) bool { return r.mayUse(p) && p.contains(addr) }) {
		return fmt.Errorf("%s is in no pool that is open to it", addr)
	}
	for name, other := range a.holders[addr] {
		if !compatible(r, other) {
			return fmt.Errorf("%s is in use by service %s", addr, name)
		}
	}
	return nil
}

func compatible(a, b Request) bool {
	if a.SharingKey == "" || a.SharingKey != b.SharingKey {
		return false
	}
	return !slices.ContainsFunc(a.Ports, func(p string) bool { return slices.Contains(b.Ports, p) })
}

// shared finds an address that Services with the same sharing key have.
func (a *Allocator) shared(r Request, f corev1.IPFamily) (netip.Addr, bool) {
	var found []netip.Addr
	for addr := range a.holders {
		if r.SharingKey != "" && familyOf(addr) == f && a.check(r, addr) == nil {
			found = append(found, addr)
		}
	}
	if len(found) == 0 {
		return netip.Addr{}, false
	}
	return slices.MinFunc(found, netip.Addr.Compare), true
}

func (a *Allocator) free(p pool, f corev1.IPFamily) (netip.Addr, bool) {
	for _, r := range p.ranges {
		if familyOf(r.First) != f {
			continue
		}
		// Not longer than there are addresses in use, however large the range.
		for addr := r.First; r.Contains(addr); addr = addr.Next() {
			if a.holders[addr] == nil && !a.reserved[addr] {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

func (p pool) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r v1alpha1.AddressRange) bool { return r.Contains(addr) })
}

func (p pool) has(f corev1.IPFamily) bool {
	return slices.ContainsFunc(p.ranges, func(r v1alpha1.AddressRange) bool { return familyOf(r.First) == f })
}
