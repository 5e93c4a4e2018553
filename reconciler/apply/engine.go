package apply

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// parallel bounds the requests that one engine has under way at once.
const parallel = 8

// Desired is a set of objects that the cluster should hold.
type Desired struct {
	// Commit identifies the set in the inventory.
	Commit string
	// Objects are only read, and not kept.
	Objects []*unstructured.Unstructured
	// AllowPrune reports whether deleting more than half of the inventory was
	// allowed explicitly since the given commit was applied.
	AllowPrune func(since string) bool
}

// Engine makes the cluster hold one set of objects after another. Drifts and
// Close may be called at any time, the other methods by one goroutine at a time.
type Engine struct {
	client *Client
	log    *slog.Logger

	// Used by the calling goroutine only.
	commit     string
	allowPrune func(since string) bool
	order      []*object // all objects by stage and name
	record     *Record   // nil until read
	recorded   bool      // the record has all objects of the set
	pruned     bool      // what left the set is gone, and the record says so

	// mu guards what the hub's notifications touch: the fields below, and of
	// the objects those that say so. The calling goroutine, which alone writes
	// options, rules and the maps of objects, reads these without it.
	mu      sync.Mutex
	o       Options
	rules   rules
	objects map[ID]*object   // by key
	extra   map[ID]*object   // by key: Options.Extra that are not in objects
	leaving map[ID]*resource // objects whose end somebody waits for, watched as this
	woken   bool             // Notify was called and nobody came yet
	timer   *time.Timer      // calls Notify at due
	due     time.Time
	drifts  driftLog
	closed  bool
}

// NewEngine makes an engine without objects.
func NewEngine(client *Client, o Options) *Engine {
	e := &Engine{client: client, objects: map[ID]*object{}, extra: map[ID]*object{}, leaving: map[ID]*resource{}}
	e.Configure(o)
	return e
}

// Configure replaces the options. Name, Labels and Ignore take effect with the
// next Set. Bad expressions and selectors are reported by the next Set.
func (e *Engine) Configure(o Options) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e.log = o.Log
	compiled := compileRules(o)
	o.Extra = slices.Clone(o.Extra)
	e.mu.Lock()
	if e.o.Hub != o.Hub {
		e.untrackAll()
	}
	e.o, e.rules = o, compiled
	e.mu.Unlock()
	e.setExtra(o.Extra)
}

// Close stops all notifications. The objects stay in the cluster.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.timer != nil {
		e.timer.Stop()
	}
	e.untrackAll()
}

// Set replaces the wanted objects. What is known of objects that stay is kept.
// It sends nothing.
func (e *Engine) Set(d Desired) error {
	if e.rules.err != nil {
		return e.rules.err
	}
	next := make(map[ID]*object, len(d.Objects))
	for _, u := range d.Objects {
		o, err := newObject(u, &e.o, &e.rules)
		if err != nil {
			return err
		}
		next[o.id.key()] = o
	}
	e.commit, e.allowPrune = d.Commit, d.AllowPrune
	// What others changed in the inventory since is read again with each set.
	e.record, e.recorded, e.pruned = nil, false, false
	e.replace(next)
	e.setExtra(e.o.Extra)
	return nil
}

// replace exchanges the objects and keeps what is known of those that stay.
func (e *Engine) replace(next map[ID]*object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.objects
	for key, o := range next {
		if old := e.find(before, key, o); old != nil {
			o.inherit(old)
		}
	}
	e.objects = next
	e.index()
	for _, o := range before {
		e.untrack(o)
		if e.objects[o.id.key()] == nil {
			e.disremember(o)
		}
	}
}

// find looks up what is known of an object: an object without a namespace may
// have been placed in the default one, or one with a namespace outside of any.
func (e *Engine) find(known map[ID]*object, key ID, o *object) *object {
	if old := known[key]; old != nil {
		return old
	}
	key.Namespace = otherPlace(key.Namespace)
	if old := known[key]; old != nil && old.misplaced {
		o.place(old.res)
		return old
	}
	return nil
}

// index finds objects by their identity, which placing them may have changed,
// and puts them in order; mu is held.
func (e *Engine) index() {
	placed := make(map[ID]*object, len(e.objects))
	for _, o := range e.objects {
		placed[o.id.key()] = o
	}
	e.objects = placed
	e.order = make([]*object, 0, len(e.objects))
	for _, o := range e.objects {
		e.order = append(e.order, o)
	}
	slices.SortFunc(e.order, func(a, b *object) int {
		if a.stage != b.stage {
			return int(a.stage) - int(b.stage)
		}
		return a.id.compare(b.id)
	})
}

// each calls do for the objects in parallel and returns the first error.
func each(ctx context.Context, objects []*object, do func(context.Context, *object) error) error {
	if len(objects) == 0 {
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, o := range objects {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, o); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
