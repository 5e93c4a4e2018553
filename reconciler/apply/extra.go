package apply

import (
	"context"
	"errors"
	"time"
)

// setExtra makes the hub watch the further objects whose health counts.
func (e *Engine) setExtra(ids []ID) {
	next := make(map[ID]*object, len(ids))
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		key := id.key()
		switch {
		case e.objects[key] != nil:
		case e.extra[key] != nil:
			next[key] = e.extra[key]
		default:
			next[key] = &object{id: id, foreign: true, moved: true, health: health{State: Unknown, Message: "not looked at yet"}}
		}
	}
	for key, o := range e.extra {
		if next[key] == nil {
			e.untrack(o)
		}
	}
	e.extra = next
}

// extraRetry is when to look again for a kind that is not served yet.
const extraRetry = 5 * time.Second

// resolveExtra finds where the further objects live, and has the hub watch them.
func (e *Engine) resolveExtra(ctx context.Context) error {
	for i, id := range e.o.Extra {
		o := e.extra[id.key()]
		if o == nil {
			continue
		}
		if o.res == nil {
			r, err := e.client.kinds.anyVersion(ctx, id.gvk())
			if errors.Is(err, errNoKind) {
				e.later(extraRetry)
				continue
			}
			if err != nil {
				return err
			}
			e.found(i, o, r)
		}
		e.track(o)
	}
	return nil
}

// found says where a further object lives.
func (e *Engine) found(i int, o *object, r *resource) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o.res = r
	if r.namespaced || o.id.Namespace == "" {
		return
	}
	delete(e.extra, o.id.key())
	o.id.Namespace = ""
	e.extra[o.id.key()] = o
	e.o.Extra[i] = o.id
}
