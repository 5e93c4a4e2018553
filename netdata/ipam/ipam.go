package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// Rest is how long a released address is not used again, unless no other is
// left.
const Rest = 2 * time.Minute

// ErrExhausted is returned when every address of the range is in use.
var ErrExhausted = errors.New("no address left in the pod range")

// Pool is a range and what is in use of it.
type Pool struct {
	prefix netip.Prefix
	now    func() time.Time

	mu       sync.Mutex
	used     map[netip.Addr]bool
	released map[netip.Addr]time.Time
	last     netip.Addr
}

// New returns a pool of a prefix of at least four addresses. The first two and the last are
// never given out: network (or subnet router), the customary gateway, broadcast.
func New(prefix netip.Prefix) (*Pool, error) {
	return newPool(prefix, time.Now)
}

func newPool(prefix netip.Prefix, now func() time.Time) (*Pool, error) {
	if !prefix.IsValid() || hostBits(prefix) < 2 {
		return nil, fmt.Errorf("pod range %s: need a range of at least four addresses, such as a /24 or a /64", prefix)
	}
	prefix = prefix.Masked()
	return &Pool{
		prefix:   prefix,
		now:      now,
		used:     map[netip.Addr]bool{},
		released: map[netip.Addr]time.Time{},
		last:     prefix.Addr().Next(), // the gateway's, so that the first given out is .2
	}, nil
}

// Prefix is the range.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// InUse is the number of addresses given out.
func (p *Pool) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.used)
}

// Allocate gives out an address: the next one that is free and rested, or else the one that
// has rested longest.
func (p *Pool) Allocate() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
	var oldest netip.Addr
	for a, n := p.after(p.last), p.tries(); n > 0; a, n = p.after(a), n-1 {
		if p.used[a] {
			continue
		}
		since, rests := p.released[a]
		if !rests {
			return p.take(a), nil
		}
		if !oldest.IsValid() || since.Before(p.released[oldest]) {
			oldest = a
		}
	}
	if oldest.IsValid() {
		return p.take(oldest), nil
	}
	return netip.Addr{}, fmt.Errorf("%w %s (%d in use)", ErrExhausted, p.prefix, len(p.used))
}

// Claim marks an address as in use, as found at start. One outside the range
// is remembered all the same: a node keeps its pods when its range changes.
func (p *Pool) Claim(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[a] = true
	if p.prefix.Contains(a) && p.last.Less(a) {
		p.last = a
	}
}

// Release gives an address back. One that is not in use is left alone.
func (p *Pool) Release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.used[a] {
		return
	}
	delete(p.used, a)
	p.wake()
	if p.prefix.Contains(a) {
		p.released[a] = p.now()
	}
}

func (p *Pool) take(a netip.Addr) netip.Addr {
	p.used[a] = true
	delete(p.released, a)
	p.last = a
	return a
}

// first is the first that can be given out.
func (p *Pool) first() netip.Addr { return p.prefix.Addr().Next().Next() }

// tries is how many addresses in turn hold a free one if there is any: of a large range, no
// more need be looked at than are in use or rest.
func (p *Pool) tries() int {
	known := len(p.used) + len(p.released) + 1
	if bits := hostBits(p.prefix); bits < 30 {
		return min(known, 1<<bits-3)
	}
	return known
}

// wake forgets about addresses that have rested.
func (p *Pool) wake() {
	now := p.now()
	maps.DeleteFunc(p.released, func(_ netip.Addr, since time.Time) bool { return now.Sub(since) >= Rest })
}

func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

func (p *Pool) after(a netip.Addr) netip.Addr {
	next := a.Next()
	if !next.IsValid() || !p.prefix.Contains(next) || !p.prefix.Contains(next.Next()) {
		return p.first()
	}
	return next
}
