package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

const (
	// maxHeld bounds the memory for the bases of deltas while a pack is taken
	// in; a base that was dropped is made again.
	maxHeld = 24 << 20
	// maxRework bounds how many bytes are made again, as a multiple of what one
	// fetch may hold: only a pack made to be expensive needs more.
	maxRework = 4
)

// resolver computes the ids of the objects that are deltas.
type resolver struct {
	pack    *pack // the one being taken in
	limits  Limits
	entries []entry
	links   *links
	// outside finds the bases that the pack lacks; it returns ErrMissing.
	outside func(id plumbing.Hash) (plumbing.ObjectType, []byte, error)

	byOffset []int // offset deltas by the offset of their base
	byBase   []int // reference deltas by their base
	left     int   // deltas without an id
	held     int64
	rework   int64
	// borrowed are the bases from outside, which a pack needs to be complete.
	borrowed []plumbing.Hash
}

// frame is an object whose deltas are being resolved.
type frame struct {
	entry    int // its own entry; -1 for one from outside
	kind     plumbing.ObjectType
	data     []byte // nil if it was dropped
	children []int
}

func (r *resolver) resolve(ctx context.Context) error {
	for i := range r.entries {
		switch r.entries[i].kind {
		case plumbing.OFSDeltaObject:
			r.byOffset = append(r.byOffset, i)
		case plumbing.REFDeltaObject:
			r.byBase = append(r.byBase, i)
		}
	}
	r.left = len(r.byOffset) + len(r.byBase)
	if r.left == 0 {
		return nil
	}
	slices.SortFunc(r.byOffset, func(a, b int) int {
		return int(r.entries[a].parent - r.entries[b].parent)
	})
	slices.SortFunc(r.byBase, func(a, b int) int {
		return bytes.Compare(r.entries[a].base[:], r.entries[b].base[:])
	})
	for i := range r.entries {
		e := &r.entries[i]
		if e.kind == plumbing.OFSDeltaObject || e.kind == plumbing.REFDeltaObject {
			continue
		}
		if err := r.from(ctx, frame{entry: i, kind: e.kind, children: r.childrenOf(e.offset, e.id)}); err != nil {
			return err
		}
	}
	return r.fromOutside(ctx)
}

// fromOutside resolves the deltas against objects that are not in the pack.
func (r *resolver) fromOutside(ctx context.Context) error {
	for at := 0; at < len(r.byBase) && r.left > 0; at++ {
		e := &r.entries[r.byBase[at]]
		if !e.id.IsZero() || at > 0 && e.base == r.entries[r.byBase[at-1]].base {
			continue
		}
		kind, data, err := r.outside(e.base)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return err
		}
		r.borrowed = append(r.borrowed, e.base)
		if err := r.from(ctx, frame{entry: -1, kind: kind, data: data, children: r.childrenOf(-1, e.base)}); err != nil {
			return err
		}
	}
	if r.left > 0 {
		return fmt.Errorf("read pack: the bases of %d deltas are missing", r.left)
	}
	return nil
}

// childrenOf lists the deltas against an object that have no id yet.
func (r *resolver) childrenOf(offset int64, id plumbing.Hash) []int {
	var out []int
	at := sort.Search(len(r.byOffset), func(i int) bool { return r.entries[r.byOffset[i]].parent >= offset })
	for ; at < len(r.byOffset) && r.entries[r.byOffset[at]].parent == offset; at++ {
		out = append(out, r.byOffset[at])
	}
	at = sort.Search(len(r.byBase), func(i int) bool { return bytes.Compare(r.entries[r.byBase[i]].base[:], id[:]) >= 0 })
	for ; at < len(r.byBase) && r.entries[r.byBase[at]].base == id; at++ {
		if r.entries[r.byBase[at]].id.IsZero() {
			out = append(out, r.byBase[at])
		}
	}
	return out
}

// from resolves everything that is a delta, or a delta of a delta, of root.
func (r *resolver) from(ctx context.Context, root frame) error {
	stack := []frame{root}
	r.held = int64(len(root.data))
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.children) == 0 {
			r.held -= int64(len(top.data))
			stack = stack[:len(stack)-1]
			continue
		}
		child := top.children[0]
		if !r.entries[child].id.IsZero() {
			top.children = top.children[1:]
			continue
		}
		if err := r.restore(stack); err != nil {
			return err
		}
		top.children = top.children[1:]
		data, err := r.apply(top.data, child)
		if err != nil {
			return err
		}
		if len(top.children) == 0 {
			r.held -= int64(len(top.data)) // nobody needs it any more
			top.data = nil
		}
		e := &r.entries[child]
		e.id = plumbing.ComputeHash(top.kind, data)
		if r.left--; r.left%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.links.add(top.kind, data); err != nil {
			return err
		}
		if children := r.childrenOf(e.offset, e.id); len(children) > 0 {
			if len(stack) > maxChain {
				return fmt.Errorf("%w: a chain of more than %d deltas", ErrTooLarge, maxChain)
			}
			stack = append(stack, frame{entry: child, kind: top.kind, data: data, children: children})
			r.held += int64(len(data))
			r.release(stack)
		}
	}
	return nil
}

// release drops the data of the lowest frames until the rest is within the
// bound; the upper two are needed next.
func (r *resolver) release(stack []frame) {
	for i := 0; i < len(stack)-2 && r.held > maxHeld; i++ {
		r.held -= int64(len(stack[i].data))
		stack[i].data = nil
	}
}

// restore makes the data of the top frame again if it was dropped.
func (r *resolver) restore(stack []frame) error {
	top := len(stack) - 1
	if stack[top].data != nil {
		return nil
	}
	from := top
	for from > 0 && stack[from].data == nil {
		from--
	}
	data := stack[from].data
	if data == nil {
		var err error
		if data, err = r.rootData(&stack[0]); err != nil {
			return err
		}
	}
	for i := from + 1; i <= top; i++ {
		var err error
		if data, err = r.apply(data, stack[i].entry); err != nil {
			return err
		}
		if r.rework += int64(len(data)); r.rework > maxRework*r.limits.Objects {
			return fmt.Errorf("%w: the pack's deltas are too expensive to resolve", ErrTooLarge)
		}
	}
	r.held += int64(len(data) - len(stack[top].data))
	stack[top].data = data
	return nil
}

func (r *resolver) rootData(root *frame) ([]byte, error) {
	if root.entry < 0 {
		_, data, err := r.outside(r.borrowed[len(r.borrowed)-1])
		return data, err
	}
	_, data, err := r.pack.entry(r.entries[root.entry].offset, true, r.limits.Object)
	if err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	return data, nil
}

// apply makes the object that an entry is from its base.
func (r *resolver) apply(base []byte, child int) ([]byte, error) {
	_, delta, err := r.pack.entry(r.entries[child].offset, true, r.limits.Object)
	if err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	// Its size was checked against the limit when the pack was read.
	data, err := packfile.PatchDelta(base, delta)
	if err != nil {
		return nil, fmt.Errorf("read pack: apply delta: %w", err)
	}
	if data == nil {
		data = []byte{} // an empty object is not a dropped one
	}
	return data, nil
}
