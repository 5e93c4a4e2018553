package acceptance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// maxMerged bounds the commits that one merge may bring.
const maxMerged = 10_000

var errTooManyMerged = fmt.Errorf("%w: a merge brings more than %d commits", mirror.ErrTooLarge, maxMerged)

// mainline is the first-parent path: from the tip back to the last accepted
// commit, and further back as far as somebody asks. It tells what a merge
// brings that was not there before, without reading the whole history.
type mainline struct {
	h  *history
	at map[string]int // place on the path, 0 is the tip
	// ids is the path from the tip backwards; oldest is the commit at its end.
	ids    []string
	oldest *signers.Commit
}

func newMainline(h *history, path []string) (*mainline, error) {
	m := &mainline{h: h, at: make(map[string]int, len(path)), ids: slices.Clip(path)}
	for i, id := range path {
		m.at[id] = i
	}
	var err error
	m.oldest, err = h.commit(path[len(path)-1])
	return m, err
}

// extend looks one commit further back. It reports false at the first commit
// of the repository.
func (m *mainline) extend() (bool, error) {
	if len(m.oldest.Parents) == 0 {
		return false, nil
	}
	id := m.oldest.Parents[0]
	c, err := m.h.commit(id)
	if err != nil {
		return false, err
	}
	m.at[id] = len(m.ids)
	m.ids, m.oldest = append(m.ids, id), c
	return true, nil
}

// reachBack extends the path until it ends before t. Times are what their
// authors wrote, so this only guesses how far back is enough.
func (m *mainline) reachBack(t time.Time) error {
	for !m.oldest.CommitTime.Before(t) {
		if more, err := m.extend(); err != nil || !more {
			return err
		}
	}
	return nil
}

// branch is what side branches lead to before they meet the mainline.
type branch struct {
	commits map[string]*signers.Commit
	order   []string
	// met is the oldest place on the mainline where they meet it; rootless says
	// that a part of them never does.
	met      int
	rootless bool
}

// walk follows parents back to the mainline as it is known.
func (m *mainline) walk(ctx context.Context, parents []string) (*branch, error) {
	b := &branch{commits: map[string]*signers.Commit{}}
	for queue := append([]string(nil), parents...); len(queue) > 0; {
		id := queue[0]
		queue = queue[1:]
		if at, ok := m.at[id]; ok {
			b.met = max(b.met, at)
			continue
		}
		if b.commits[id] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := m.h.commit(id)
		if err != nil {
			return nil, err
		}
		b.commits[id], b.order = c, append(b.order, id)
		if len(b.order) > maxMerged {
			return nil, errTooManyMerged
		}
		b.rootless = b.rootless || len(c.Parents) == 0
		queue = append(queue, c.Parents...)
		if err := m.reachBack(c.CommitTime); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// sideBranch is walk with a mainline that is known far enough: where the walk
// made it longer, or ran past it to the beginning of history, a commit taken
// for the branch's may be the mainline's after all.
func (m *mainline) sideBranch(ctx context.Context, parents []string) (*branch, error) {
	for {
		known := len(m.ids)
		b, err := m.walk(ctx, parents)
		if err != nil {
			return nil, err
		}
		if b.rootless {
			for more := true; more; {
				if more, err = m.extend(); err != nil {
					return nil, err
				}
			}
		}
		if len(m.ids) == known {
			return b, nil
		}
	}
}

// brought lists what a merge at a place on the mainline brings to it: the
// ancestors of its other parents that are not ancestors of its first parent.
//
// An ancestor of the first parent that is not on the mainline got there by an
// older merge. That merge descends from the commit, and so from the place where
// the commit's own ancestors meet the mainline: it is enough to look at merges
// that are newer than the oldest such place.
func (m *mainline) brought(ctx context.Context, at int, parents []string) (*branch, error) {
	b, err := m.sideBranch(ctx, parents)
	if err != nil || len(b.order) == 0 {
		return b, err
	}
	before := map[string]bool{}
	for i := at + 1; i <= b.met || b.rootless && i < len(m.ids); i++ {
		c, err := m.h.commit(m.ids[i])
		if err != nil {
			return nil, err
		}
		if len(c.Parents) < 2 {
			continue
		}
		older, err := m.sideBranch(ctx, c.Parents[1:])
		if err != nil {
			return nil, err
		}
		for _, id := range older.order {
			before[id] = true
		}
	}
	kept := b.order[:0]
	for _, id := range b.order {
		if before[id] {
			delete(b.commits, id)
		} else {
			kept = append(kept, id)
		}
	}
	b.order = kept
	return b, nil
}
