package flows

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// testHub is a hub whose listeners the test holds.
type testHub struct {
	*Hub
	t         *testing.T
	listeners chan *fakeListener
}

func newTestHub(t *testing.T) *testHub {
	h := &testHub{t: t, listeners: make(chan *fakeListener, 8)}
	h.Hub = NewHub(func(kinds maps.EventKinds) (Listener, error) {
		l := newFakeListener(kinds)
		h.listeners <- l
		return l, nil
	}, fakeNames{}, slog.New(slog.DiscardHandler))
	t.Cleanup(h.Close)
	return h
}

// watch runs a watcher until stop; it returns when the watcher is there.
func (h *testHub) watch(filter Filter, visit func([]Flow, Lost) error) (stop context.CancelFunc, ended <-chan error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	there, done := make(chan struct{}), make(chan error, 1)
	first := true
	go func() {
		done <- h.Watch(ctx, filter, func(f []Flow, l Lost) error {
			if first {
				first = false
				close(there)
				return nil
			}
			return visit(f, l)
		})
	}()
	select {
	case <-there:
	case err := <-done:
		h.t.Fatalf("watch: %v", err)
	case <-time.After(10 * time.Second):
		h.t.Fatal("the watcher did not start")
	}
	return cancel, done
}

func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	panic("unreachable")
}

func TestHubSpreadsToEachWhatItWants(t *testing.T) {
	h := newTestHub(t)
	all, drops := make(chan Flow, 8), make(chan Flow, 8)
	into := func(c chan Flow) func([]Flow, Lost) error {
		return func(flows []Flow, _ Lost) error {
			for _, f := range flows {
				c <- f
			}
			return nil
		}
	}
	stopDrops, endedDrops := h.watch(Filter{Verdicts: []Verdict{Dropped}}, into(drops))
	l := within(t, h.listeners, "a listener")
	if got := l.wanted(); got != maps.Kinds(maps.EventDrop) {
		t.Errorf("raised are %b, want drops alone", got)
	}
	stopAll, endedAll := h.watch(Filter{}, into(all))
	if got := l.wanted(); got != (Filter{}).Kinds() {
		t.Errorf("with a second watcher %b are raised", got)
	}
	l.events <- newFlow("10.244.1.2:1000", "10.244.1.3:80", "")
	l.events <- denied(maps.EventDrop, spoofed, maps.HookFromPod, "10.244.9.9:1000", "10.244.1.3:80")
	if f := within(t, drops, "the drop"); f.Verdict != Dropped {
		t.Errorf("who wants drops got %+v", f)
	}
	if f := within(t, all, "the flow"); f.From.Pod != "web-0" {
		t.Errorf("who wants all got %+v first", f)
	}
	within(t, all, "the drop for the other one")

	stopAll()
	if err := within(t, endedAll, "the end of a watcher"); err != nil {
		t.Error(err)
	}
	if got := l.wanted(); got != maps.Kinds(maps.EventDrop) {
		t.Errorf("after the second has gone %b are raised", got)
	}
	stopDrops()
	within(t, endedDrops, "the end of the last watcher")
	within(t, l.closed, "the listener to be closed with the last watcher")
	if len(h.listeners) != 0 {
		t.Error("a second listener was made")
	}
}

// A watcher that takes nothing keeps nobody waiting, and learns what it missed.
func TestHubCountsWhatASlowWatcherMisses(t *testing.T) {
	h := newTestHub(t)
	release, losses := make(chan struct{}), make(chan Lost, 8)
	stop, ended := h.watch(Filter{}, func(_ []Flow, l Lost) error {
		<-release
		if l != (Lost{}) {
			losses <- l
		}
		return nil
	})
	defer stop()
	l := within(t, h.listeners, "a listener")
	// One batch is in the watcher's hands, the rest waits; what is too much is lost.
	const events = 2*backlog + 64
	for range events {
		select {
		case l.events <- newFlow("10.244.1.2:1000", "10.244.1.3:80", ""):
		case <-time.After(10 * time.Second):
			t.Fatal("the slow watcher blocks the reader")
		}
	}
	l.lose(7)
	close(release)
	lost := within(t, losses, "the watcher to hear of its loss")
	if lost.Kernel != 7 || lost.Watcher == 0 || lost.Watcher >= events {
		t.Errorf("lost %+v, want 7 in the kernel and some for the watcher", lost)
	}
	stop()
	within(t, ended, "the end")
}

func TestHubEndsWatchers(t *testing.T) {
	nothing := func([]Flow, Lost) error { return nil }
	t.Run("when the dataplane stops", func(t *testing.T) {
		h := newTestHub(t)
		_, ended := h.watch(Filter{}, nothing)
		h.Close()
		if err := within(t, ended, "the end"); !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
		if err := h.Watch(t.Context(), Filter{}, nothing); !errors.Is(err, ErrClosed) {
			t.Errorf("a watcher that comes later: %v", err)
		}
	})
	t.Run("when the ring breaks", func(t *testing.T) {
		h := newTestHub(t)
		_, ended := h.watch(Filter{}, nothing)
		within(t, h.listeners, "a listener").breakWith(errors.New("broken ring"))
		if err := within(t, ended, "the end"); err == nil || !strings.Contains(err.Error(), "broken ring") {
			t.Errorf("ended with %v", err)
		}
		// The next one gets a listener of its own.
		stop, _ := h.watch(Filter{}, nothing)
		within(t, h.listeners, "another listener")
		stop()
	})
	t.Run("when visit fails", func(t *testing.T) {
		h := newTestHub(t)
		gone := errors.New("the client is gone")
		_, ended := h.watch(Filter{}, func([]Flow, Lost) error { return gone })
		within(t, h.listeners, "a listener").events <- newFlow("10.244.1.2:1", "10.244.1.3:2", "")
		if err := within(t, ended, "the end"); !errors.Is(err, gone) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestHubRefusesTooManyWatchers(t *testing.T) {
	h := newTestHub(t)
	nothing := func([]Flow, Lost) error { return nil }
	for range maxWatchers {
		h.watch(Filter{}, nothing)
	}
	if err := h.Watch(t.Context(), Filter{}, nothing); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("got %v, want to be told of the limit", err)
	}
}

func TestHubWithoutARing(t *testing.T) {
	broken := errors.New("no memory for a ring")
	h := NewHub(func(maps.EventKinds) (Listener, error) { return nil, broken }, fakeNames{}, slog.New(slog.DiscardHandler))
	defer h.Close()
	if err := h.Watch(t.Context(), Filter{}, func([]Flow, Lost) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
