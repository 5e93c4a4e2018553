package ipam

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func pool(t *testing.T, prefix string) (*Pool, *clock) {
	t.Helper()
	c := &clock{time.Unix(1_000_000, 0)}
	p, err := newPool(netip.MustParsePrefix(prefix), c.now)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func allocate(t *testing.T, p *Pool) string {
	t.Helper()
	a, err := p.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

func TestAddressesAreGivenOutInTurn(t *testing.T) {
	p, _ := pool(t, "10.1.0.0/29")
	for _, want := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"} {
		if got := allocate(t, p); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := p.Allocate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("full range: got %v", err)
	}
}

func TestReleasedAddressRests(t *testing.T) {
	p, c := pool(t, "10.1.0.0/29")
	first := allocate(t, p)
	p.Release(netip.MustParseAddr(first))
	for range 4 {
		if got := allocate(t, p); got == first {
			t.Fatalf("%s was used again while others were free", first)
		}
	}
	// Nothing else is left: better early than never.
	if got := allocate(t, p); got != first {
		t.Errorf("got %s, want the resting %s", got, first)
	}
	p.Release(netip.MustParseAddr("10.1.0.4"))
	c.t = c.t.Add(time.Second)
	p.Release(netip.MustParseAddr("10.1.0.3"))
	if got := allocate(t, p); got != "10.1.0.4" {
		t.Errorf("got %s, want 10.1.0.4, which rested longest", got)
	}
	c.t = c.t.Add(Rest)
	if got := allocate(t, p); got != "10.1.0.3" {
		t.Errorf("got %s, want the rested 10.1.0.3", got)
	}
}

func TestClaimedAddressIsNotGivenOut(t *testing.T) {
	p, _ := pool(t, "10.1.0.0/29")
	p.Claim(netip.MustParseAddr("10.1.0.3"))
	p.Claim(netip.MustParseAddr("10.9.9.9")) // of an earlier range
	got := map[string]bool{}
	for range 4 {
		got[allocate(t, p)] = true
	}
	if got["10.1.0.3"] {
		t.Error("a claimed address was given out")
	}
	if n := p.InUse(); n != 6 {
		t.Errorf("%d in use, want 6", n)
	}
	p.Release(netip.MustParseAddr("10.9.9.9"))
	if _, err := p.Allocate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("an address outside the range was given out (%v)", err)
	}
}

func TestUselessRangesAreRefused(t *testing.T) {
	for _, s := range []string{"10.1.0.0/31", "10.1.0.0/32", "fd00::/127", "fd00::/128"} {
		if _, err := New(netip.MustParsePrefix(s)); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
	if _, err := New(netip.Prefix{}); err == nil {
		t.Error("an invalid range was accepted")
	}
}

func TestLargeRange(t *testing.T) {
	p, c := pool(t, "fd00:1::/64")
	for _, want := range []string{"fd00:1::2", "fd00:1::3", "fd00:1::4"} {
		if got := allocate(t, p); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	// Pods come and go for days: what has rested is forgotten, and the next in turn is used.
	for range 10_000 {
		a := netip.MustParseAddr(allocate(t, p))
		p.Release(a)
		c.t = c.t.Add(Rest)
	}
	if n := len(p.released); n > 1 {
		t.Errorf("%d released addresses are remembered", n)
	}
	if got := allocate(t, p); got != "fd00:1::2715" {
		t.Errorf("got %s, want the next in turn, fd00:1::2715", got)
	}
}

func TestBothFamiliesOrNone(t *testing.T) {
	r, err := NewRanges([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/30"), netip.MustParsePrefix("fd00:1::/64")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Allocate()
	if err != nil || len(got) != 2 || got[0].String() != "10.1.0.2" || got[1].String() != "fd00:1::2" {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := r.Allocate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("one range is full: got %v", err)
	}
	r.Release(got)
	for _, p := range r {
		if n := p.InUse(); n != 0 {
			t.Errorf("%s: %d in use", p.Prefix(), n)
		}
	}
	r.Claim(got)
	if _, err := r.Allocate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("a claimed address was given out: %v", err)
	}
}
