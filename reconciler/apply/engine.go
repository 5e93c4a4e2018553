package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// parallel bounds the requests under way at once.
const parallel = 8

// Desired is a set of objects that the cluster should hold.
type Desired struct {
	// Commit identifies the set in the inventory.
	Commit  string
	Objects []*unstructured.Unstructured
	// AllowPrune reports whether deleting more than half of the inventory was
	// allowed explicitly since the given commit was applied.
	AllowPrune func(since string) bool
}

// Engine applies one set of objects after another. Its methods are called by
// one goroutine at a time.
type Engine struct {
	client *Client
	name   string
	log    *slog.Logger

	commit     string
	allowPrune func(since string) bool
	objects    map[ID]*object // by key
	inventory  *inventory     // nil until read
}

// NewEngine makes an engine for the inventory called name.
func NewEngine(client *Client, name string, log *slog.Logger) *Engine {
	return &Engine{client: client, name: name, log: log, objects: map[ID]*object{}}
}

// Set replaces the wanted objects. What is known of objects that stay is kept.
func (e *Engine) Set(d Desired) error {
	next := make(map[ID]*object, len(d.Objects))
	for _, u := range d.Objects {
		o, err := newObject(u, e.name)
		if err != nil {
			return err
		}
		next[o.id.key()] = o
		if old := e.objects[o.id.key()]; old != nil {
			o.inherit(old)
		}
	}
	e.objects, e.commit, e.allowPrune = next, d.Commit, d.AllowPrune
	// What others changed in the inventory since is read again with each commit.
	e.inventory = nil
	return nil
}

func (o *object) inherit(old *object) {
	o.uid, o.resourceVersion, o.generation = old.uid, old.resourceVersion, old.generation
	o.applied, o.health = old.applied, old.health
	if o.digest == old.digest {
		o.failure = old.failure
	}
}

// resolve finds where the objects of known kinds live; kinds whose definition
// is among the objects are resolved when they are sent.
func (e *Engine) resolve(ctx context.Context) error {
	placed := make(map[ID]*object, len(e.objects))
	unknown := map[schema.GroupVersionKind]bool{}
	for _, o := range e.objects {
		if unknown[o.id.gvk()] {
			placed[o.id.key()] = o
			continue
		}
		r, err := e.client.resourceOf(ctx, o.id.gvk())
		switch {
		case errors.Is(err, errNoKind):
			unknown[o.id.gvk()] = true
		case err != nil:
			return err
		default:
			if err := o.place(r); err != nil {
				return fmt.Errorf("encode %s: %w", o.id, err)
			}
		}
		placed[o.id.key()] = o
	}
	e.objects = placed
	return nil
}

// each calls do for the objects in parallel and returns the first error.
func each(ctx context.Context, objects []*object, do func(context.Context, *object) error) error {
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

// Reconnect makes the engine use another connection.
func (e *Engine) Reconnect(client *Client) { e.client = client }
