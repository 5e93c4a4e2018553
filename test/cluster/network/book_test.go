package network

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// grace is how long after the acknowledged removal of an endpoint somebody may still be
// given to it. On top comes, twice, what this machine keeps the test itself waiting for a
// core: the agent has to be woken to hear of the removal, and again to end flows.
const grace = 100 * time.Millisecond

// book knows which endpoints were removed and when, and who was given to one nevertheless.
type book struct {
	mu      sync.Mutex
	removed map[string]time.Time

	connections, datagrams int
	unanswered             int
	removals               int
	// latest is how long after the removal somebody was last given to an endpoint.
	latest time.Duration
	late   []use
	// lag is how late the test itself was woken at worst.
	lag   time.Duration
	wrong []string
}

// use is something that was given to a removed endpoint.
type use struct {
	what, backend string
	after         time.Duration
}

func newBook() *book { return &book{removed: map[string]time.Time{}} }

func (b *book) String() string {
	return fmt.Sprintf("%d endpoints removed, %d connections, %d datagrams (%d unanswered), the latest use of a removed endpoint began %s after; the test itself was woken up to %s late",
		b.removals, b.connections, b.datagrams, b.unanswered, b.latest.Round(time.Millisecond), b.lag.Round(time.Millisecond))
}

func (b *book) add(backend string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.removed, backend)
}

func (b *book) remove(backend string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.removed[backend] = time.Now()
	b.removals++
}

// used notes that something begun at a time was answered by an endpoint.
func (b *book) used(what, backend string, begun time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if what == "datagram" {
		b.datagrams++
	} else {
		b.connections++
	}
	gone, ok := b.removed[backend]
	if !ok || begun.Before(gone) {
		return
	}
	after := begun.Sub(gone)
	b.latest = max(b.latest, after)
	b.late = append(b.late, use{what, backend, after})
}

// lagged notes how late the test was woken.
func (b *book) lagged(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lag = max(b.lag, by)
}

// verdict lists all that was wrong. The caller holds the lock.
func (b *book) verdict() []string {
	out := slices.Clone(b.wrong)
	for _, u := range b.late {
		if u.after > grace+2*b.lag {
			out = append(out, fmt.Sprintf("%s begun %s after the removal of %s was answered by it", u.what, u.after.Round(time.Millisecond), u.backend))
		}
	}
	return out
}

func (b *book) fail(what string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf("%s: %v", what, err))
}

// lost counts a datagram that nobody answered.
func (b *book) lost() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unanswered++
}

// check asserts that nothing was wrong and that there was enough to be wrong.
func (b *book) check(t *testing.T, took time.Duration) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if wrong := b.verdict(); len(wrong) > 0 {
		t.Errorf("%d wrong:\n  %s", len(wrong), strings.Join(wrong[:min(10, len(wrong))], "\n  "))
	}
	if least := int(took.Seconds() * connectRate * 3 / 4); b.connections < least {
		t.Errorf("%d connections in %s, want %d at least: that proves little", b.connections, took, least)
	}
	if least := int(took/updatePace) / 4; b.removals < least {
		t.Errorf("%d endpoints were removed in %s, want %d at least: that proves little", b.removals, took, least)
	}
	// One that is on its way when its endpoint goes may be lost, as datagrams may.
	if b.unanswered*100 > b.datagrams {
		t.Errorf("%d of %d datagrams were not answered", b.unanswered, b.datagrams+b.unanswered)
	}
}

// The book itself notices what it is for.
func TestBookNoticesUseOfARemovedEndpoint(t *testing.T) {
	b := newBook()
	b.remove("a")
	b.used("connection", "a", time.Now().Add(-time.Second))
	b.used("connection", "a", time.Now().Add(grace/2))
	b.used("connection", "b", time.Now().Add(time.Hour))
	if len(b.verdict()) != 0 {
		t.Errorf("wrong without reason: %v", b.verdict())
	}
	b.used("datagram", "a", time.Now().Add(2*grace))
	if !slices.ContainsFunc(b.verdict(), func(s string) bool { return strings.Contains(s, "removal of a") }) {
		t.Error("the use of a removed endpoint was not noticed")
	}
	b.add("a")
	b.used("datagram", "a", time.Now().Add(time.Hour))
	if len(b.verdict()) != 1 {
		t.Errorf("wrong after it was added again: %v", b.verdict())
	}
	if b.lagged(time.Minute); len(b.verdict()) != 0 {
		t.Errorf("wrong although the machine was late itself: %v", b.verdict())
	}
}
