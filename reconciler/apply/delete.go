package apply

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Delete removes everything that the inventory lists and that is to go, in the
// reverse of the order of creation, and empties the inventory. With wait it
// reports done only when the objects have ended; until then call it again when
// Notify says so. An error (ErrUnavailable, ctx's, or one that names the objects
// that cannot be deleted) means that it can be tried again.
func (e *Engine) Delete(ctx context.Context, wait bool) (done bool, err error) {
	e.attend()
	if err := e.readRecord(ctx); err != nil {
		return false, err
	}
	e.abandon()
	ids := append([]ID(nil), e.record.Objects...)
	sortForDeletion(ids)
	var failures []error
	var remaining []ID
	for _, id := range ids {
		e.expect(ctx, id, wait)
		outcome, waits, err := e.remove(ctx, id)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, ErrUnavailable):
			return false, err
		case err != nil:
			failures = append(failures, fmt.Errorf("delete %s: %w", id, err))
			remaining = append(remaining, id)
		case waits && wait:
			remaining = append(remaining, id)
		}
		if outcome == removalKept {
			e.log.Info("object kept", "object", id.String())
		}
	}
	if len(remaining) > 0 {
		e.later(deleteRetry)
		return false, errors.Join(failures...)
	}
	if len(e.record.Objects) == 0 {
		return true, nil
	}
	return true, e.saveRecord(ctx, Record{Commit: e.record.Commit})
}

// deleteRetry is when to look again after objects that take their time, if
// nobody tells before.
const deleteRetry = 5 * time.Second

// abandon gives up the set, so that nothing that is deleted is taken for drift.
func (e *Engine) abandon() {
	if len(e.order) > 0 {
		e.replace(map[ID]*object{})
		e.recorded, e.pruned = false, false
	}
}

// expect asks the hub to tell when an object ends.
func (e *Engine) expect(ctx context.Context, id ID, wait bool) {
	key := id.key()
	e.mu.Lock()
	hub, already := e.o.Hub, e.leaving[key]
	e.mu.Unlock()
	if !wait || hub == nil || already != nil {
		return
	}
	r, err := e.client.kinds.anyVersion(ctx, id.gvk())
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving[key] = r
	hub.track(r, id, false, e)
}
