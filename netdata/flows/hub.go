package flows

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Listener is where events come from; [maps.Listener] is one.
type Listener interface {
	// Read waits for an event; after Close it returns os.ErrClosed.
	Read(*maps.Event) error
	// Want changes which kinds come.
	Want(maps.EventKinds) error
	// Lost is how many events there was no room for, since the listener was made.
	Lost() (uint64, error)
	Close() error
}

// Listen makes a Listener. There is one at a time.
type Listen func(maps.EventKinds) (Listener, error)

// ErrClosed ends watchers when the dataplane is stopped.
var ErrClosed = errors.New("the dataplane stopped; it is watched again once it has started")

const (
	// maxWatchers is more than people; a program that leaks connections is told.
	maxWatchers = 32
	// backlog is how many flows wait for a slow watcher before some are lost for it.
	backlog = 512
	// lossInterval is how often a watcher hears of losses, at most.
	lossInterval = time.Second
)

// Hub spreads events to watchers. While there is none it holds no resources.
type Hub struct {
	listen Listen
	names  Names
	log    *slog.Logger

	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
	listener Listener
	ended    chan struct{} // closed when the listener's reader has ended
}

// watcher is one who watches.
type watcher struct {
	filter Filter
	flows  chan Flow
	// lost counts what did not fit into flows; the hub's lock guards it.
	lost uint64
	// failed is closed, with err set before, when there will be no more flows.
	failed chan struct{}
	err    error
}

// Lost says what a watcher missed since it came.
type Lost struct {
	// Kernel is how many events the programs had no room or no budget for; nobody knows whether
	// they would have matched.
	Kernel uint64 `json:"kernel"`
	// Watcher is how many flows matched, but came faster than they were taken.
	Watcher uint64 `json:"watcher"`
}

// NewHub only stores its arguments.
func NewHub(listen Listen, names Names, log *slog.Logger) *Hub {
	return &Hub{listen: listen, names: names, log: log, watchers: map[*watcher]struct{}{}}
}

// Watch calls visit with flows that match, as they come, and with what has been lost so far, until ctx ends,
// visit fails or the dataplane stops. The slice is only valid during the call; it is
// empty when there is a loss to tell and nothing else. The first call, with neither, says
// that from now on nothing is missed.
func (h *Hub) Watch(ctx context.Context, filter Filter, visit func([]Flow, Lost) error) error {
	w := &watcher{filter: filter, flows: make(chan Flow, backlog), failed: make(chan struct{})}
	if err := h.add(w); err != nil {
		return err
	}
	defer h.remove(w)
	before, err := h.kernelLost()
	if err != nil {
		return err
	}
	if err := visit(nil, Lost{}); err != nil {
		return err
	}
	return h.follow(ctx, w, before, visit)
}

func (h *Hub) follow(ctx context.Context, w *watcher, before uint64, visit func([]Flow, Lost) error) error {
	var told Lost
	tick := time.NewTicker(lossInterval)
	defer tick.Stop()
	batch := make([]Flow, 0, 64)
	for {
		batch = batch[:0]
		select {
		case f := <-w.flows:
			batch = drain(append(batch, f), w.flows)
		case <-tick.C:
			lost, err := h.lost(w, before)
			if err != nil {
				return err
			}
			if lost == told {
				continue
			}
			told = lost
		case <-w.failed:
			return w.err
		case <-ctx.Done():
			return nil
		}
		if err := visit(batch, told); err != nil {
			return err
		}
	}
}

// drain takes what is there, up to the capacity of batch.
func drain(batch []Flow, flows <-chan Flow) []Flow {
	for len(batch) < cap(batch) {
		select {
		case f := <-flows:
			batch = append(batch, f)
		default:
			return batch
		}
	}
	return batch
}

func (h *Hub) lost(w *watcher, before uint64) (Lost, error) {
	kernel, err := h.kernelLost()
	if err != nil {
		return Lost{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return Lost{Kernel: kernel - before, Watcher: w.lost}, nil
}

func (h *Hub) kernelLost() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener == nil {
		return 0, ErrClosed
	}
	return h.listener.Lost()
}

func (h *Hub) add(w *watcher) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	if len(h.watchers) >= maxWatchers {
		return fmt.Errorf("%d others are watching already, which is the limit: end one of them", maxWatchers)
	}
	h.watchers[w] = struct{}{}
	err := h.tune()
	if err != nil {
		delete(h.watchers, w)
	}
	return err
}

func (h *Hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.watchers[w]; !ok {
		return
	}
	delete(h.watchers, w)
	if err := h.tune(); err != nil {
		h.log.Warn("flows: adjust what the programs tell", "err", err)
	}
}

// tune has the programs raise what the watchers want, and nothing when there are none.
func (h *Hub) tune() error {
	var kinds maps.EventKinds
	for w := range h.watchers {
		kinds |= w.filter.Kinds()
	}
	switch {
	case len(h.watchers) == 0:
		return h.stop()
	case h.listener != nil:
		return h.listener.Want(kinds)
	}
	boot, err := maps.BootTime()
	if err != nil {
		return err
	}
	listener, err := h.listen(kinds)
	if err != nil {
		return err
	}
	h.listener, h.ended = listener, make(chan struct{})
	go h.read(listener, boot, h.ended)
	return nil
}

func (h *Hub) stop() error {
	if h.listener == nil {
		return nil
	}
	err := h.listener.Close()
	h.listener = nil
	return err
}

func (h *Hub) read(l Listener, boot time.Time, ended chan<- struct{}) {
	defer close(ended)
	for {
		var e maps.Event
		err := l.Read(&e)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			h.fail(l, err)
			return
		}
		h.spread(describe(&e, boot, h.names))
	}
}

func (h *Hub) spread(f Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !w.filter.Match(&f) {
			continue
		}
		select {
		case w.flows <- f:
		default:
			w.lost++
		}
	}
}

// fail ends all watchers of a listener that is broken.
func (h *Hub) fail(l Listener, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener == l {
		h.endAll(err)
	}
}

func (h *Hub) endAll(err error) {
	for w := range h.watchers {
		w.err = err
		close(w.failed)
		delete(h.watchers, w)
	}
	if err := h.stop(); err != nil {
		h.log.Warn("flows: stop listening", "err", err)
	}
}

// Close ends all watchers, and refuses others. It returns when nothing reads any more.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.endAll(ErrClosed)
	ended := h.ended
	h.mu.Unlock()
	if ended != nil {
		<-ended
	}
}
