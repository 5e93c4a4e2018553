package endpoint

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// failuresAllowed in a row, and then one every failurePause.
	failuresAllowed = 10
	failurePause    = 6 * time.Second
	// maxWatched bounds how many addresses are remembered.
	maxWatched = 4096
)

// failures counts failed attempts to identify, per address. Somebody who has a
// whole IPv6 network counts as one.
type failures struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*rate.Limiter
	now     func() time.Time
}

func newFailures() *failures {
	return &failures{sources: map[netip.Prefix]*rate.Limiter{}, now: time.Now}
}

// tooMany reports whether further attempts from an address are to be turned
// away unread.
func (f *failures) tooMany(from string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.sources[network(from)]
	return l != nil && l.TokensAt(f.now()) < 1
}

func (f *failures) add(from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, at := f.now(), network(from)
	l := f.sources[at]
	if l == nil {
		f.forget(now)
		l = rate.NewLimiter(rate.Every(failurePause), failuresAllowed)
		f.sources[at] = l
	}
	l.AllowN(now, 1)
}

// forget drops addresses that behaved since. If all of them are busy failing,
// a quarter of them is let off.
func (f *failures) forget(now time.Time) {
	if len(f.sources) < maxWatched {
		return
	}
	for at, l := range f.sources {
		if l.TokensAt(now) >= failuresAllowed {
			delete(f.sources, at)
		}
	}
	for at := range f.sources {
		if len(f.sources) <= maxWatched*3/4 {
			return
		}
		delete(f.sources, at)
	}
}

func network(host string) netip.Prefix {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
