package apply

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Hub watches the metadata of the objects that engines manage and tells the
// engines what happens to them. All engines of a server share its watches: one
// per kind for all objects that carry InventoryLabel, and one for each single
// object besides whose health an engine waits for. A watch starts when an engine
// first needs it and ends some time after the last one does not any more.
//
// A watch resumes where it was after an interruption, lists anew if the server
// no longer knows that point, and tells engines what changed in between. An
// idle hub costs a bookmark per watch and minute.
type Hub struct {
	client *Client
	log    *slog.Logger
	linger time.Duration
	memo   *memo // nil: nothing is remembered

	mu      sync.Mutex
	ctx     context.Context // of Run; nil outside
	watches map[target]*watch
	running sync.WaitGroup
}

// linger is how long a watch goes on that nobody needs: a set is often replaced
// by a similar one.
const linger = 30 * time.Second

// NewHub makes a hub that watches as the client's identity.
func NewHub(client *Client, log *slog.Logger) *Hub {
	return &Hub{client: client, log: log, linger: linger, watches: map[target]*watch{}}
}

// Run watches until ctx ends. It does not fail: an API server that does not
// answer is tried again.
func (h *Hub) Run(ctx context.Context) error {
	h.mu.Lock()
	h.ctx = ctx
	for _, w := range h.watches {
		h.start(w)
	}
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	h.ctx = nil
	for _, w := range h.watches {
		w.cancel = nil
	}
	h.mu.Unlock()
	h.running.Wait()
	h.memo.close()
	return nil
}

// HubStats are figures for metrics.
type HubStats struct {
	// Watches under way, and the objects that they see.
	Watches, Objects int
}

// Stats counts what the hub holds.
func (h *Hub) Stats() HubStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := HubStats{Watches: len(h.watches)}
	for _, w := range h.watches {
		for _, entry := range w.entries {
			if entry.known.uid != "" {
				s.Objects++
			}
		}
	}
	return s
}

// target is what a watch is about: with an empty name the labelled objects of a
// resource, otherwise one object.
type target struct {
	schema.GroupVersionResource
	types.NamespacedName
}

// sighting is what the hub saw of an object.
type sighting struct {
	known
	// going: it has a deletion timestamp. gone: it is deleted, or lost the label.
	going, gone bool
	// left: it is annotated to be left alone.
	left bool
	// entries are its managed fields; the hub passes them on and keeps them not.
	entries []metav1.ManagedFieldsEntry
}

func sightingOf(meta *metav1.PartialObjectMetadata) sighting {
	s := sighting{
		going: meta.DeletionTimestamp != nil,
		left:  meta.Annotations[ReconcileAnnotation] == disabled,
	}
	s.known = known{uid: meta.UID, version: meta.ResourceVersion}
	s.mark, s.usurped = traceOf(meta.UID, meta.Labels, meta.ManagedFields)
	s.entries = meta.ManagedFields
	return s
}

// track makes the hub tell e about an object, and returns what the hub sees of
// it now. single asks for a watch of this object alone.
func (h *Hub) track(r *resource, id ID, single bool, e *Engine) sighting {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := targetOf(r, id, single)
	w := h.watches[t]
	if w == nil {
		w = newWatch(h, r, t, id)
		h.watches[t] = w
		if h.ctx != nil {
			h.start(w)
		}
	}
	entry := w.entry(nameOf(id))
	entry.engines = append(entry.engines, e)
	w.users++
	return sighting{known: entry.known, left: entry.left}
}

// untrack ends what track began.
func (h *Hub) untrack(r *resource, id ID, single bool, e *Engine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.watches[targetOf(r, id, single)]
	if w == nil || !w.remove(nameOf(id), e) {
		return
	}
	if w.users--; w.users == 0 {
		time.AfterFunc(h.linger, func() { h.stop(w) })
	}
}

// start begins a watch; h.mu is held.
func (h *Hub) start(w *watch) {
	ctx, cancel := context.WithCancel(h.ctx)
	w.cancel = cancel
	h.running.Go(func() {
		defer cancel()
		w.run(ctx)
	})
}

// stop ends a watch that nobody needs.
func (h *Hub) stop(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.users > 0 || h.watches[w.target] != w {
		return
	}
	delete(h.watches, w.target)
	if w.cancel != nil {
		w.cancel()
	}
}

// awaitTimeout bounds the wait for the first list of a kind.
const awaitTimeout = 10 * time.Second

// await waits until the hub has seen what is there of a resource. A resource
// that cannot be watched does not hold anything up.
func (h *Hub) await(ctx context.Context, r *resource) error {
	h.mu.Lock()
	w := h.watches[target{GroupVersionResource: r.GroupVersionResource}]
	if w == nil || w.synced {
		h.mu.Unlock()
		return nil
	}
	tried := w.tried
	h.mu.Unlock()
	w.again()
	timeout := time.NewTimer(awaitTimeout)
	defer timeout.Stop()
	select {
	case <-tried:
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("%w: no list of %s within %s", ErrUnavailable, r.Resource, awaitTimeout)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return w.failure
}

func targetOf(r *resource, id ID, single bool) target {
	t := target{GroupVersionResource: r.GroupVersionResource}
	if single {
		t.NamespacedName = nameOf(id)
	}
	return t
}

func nameOf(id ID) types.NamespacedName {
	return types.NamespacedName{Namespace: id.Namespace, Name: id.Name}
}
