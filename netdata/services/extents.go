package services

import (
	"fmt"
	"slices"
	"time"
)

// reuseAfter is how long a freed extent rests: a program that read the old
// row may still be about to read its slots.
const reuseAfter = 5 * time.Second

// extent is a run of slots.
type extent struct {
	base  uint32
	count uint32
}

// extents hands out runs of the slots array. Freed runs rest before they are
// merged and used again.
type extents struct {
	free    []extent // sorted by base, never adjacent
	resting []resting
	now     func() time.Time
}

type resting struct {
	extent
	since time.Time
}

// newExtents begins with everything free except what is in use.
func newExtents(capacity uint32, used []extent, now func() time.Time) *extents {
	e := &extents{now: now}
	used = slices.Clone(used)
	slices.SortFunc(used, func(a, b extent) int { return int(a.base) - int(b.base) })
	next := uint32(0)
	for _, u := range used {
		if u.base > next {
			e.free = append(e.free, extent{next, u.base - next})
		}
		next = max(next, u.base+u.count)
	}
	if next < capacity {
		e.free = append(e.free, extent{next, capacity - next})
	}
	return e
}

// take returns a run of count slots, the first that fits.
func (e *extents) take(count int) (extent, error) {
	if count == 0 {
		return extent{}, nil
	}
	e.wake()
	for i, f := range e.free {
		if f.count < uint32(count) {
			continue
		}
		got := extent{f.base, uint32(count)}
		if f.count == got.count {
			e.free = slices.Delete(e.free, i, i+1)
		} else {
			e.free[i] = extent{f.base + got.count, f.count - got.count}
		}
		return got, nil
	}
	return extent{}, fmt.Errorf("the slots table has no room for %d backends; it is tried again as other services shrink", count)
}

// put gives a run back.
func (e *extents) put(x extent) {
	if x.count > 0 {
		e.resting = append(e.resting, resting{x, e.now()})
	}
}

func (e *extents) wake() {
	limit := e.now().Add(-reuseAfter)
	n := 0
	for n < len(e.resting) && e.resting[n].since.Before(limit) {
		e.insert(e.resting[n].extent)
		n++
	}
	e.resting = slices.Delete(e.resting, 0, n)
}

func (e *extents) insert(x extent) {
	i, _ := slices.BinarySearchFunc(e.free, x, func(a, b extent) int { return int(a.base) - int(b.base) })
	e.free = slices.Insert(e.free, i, x)
	if i+1 < len(e.free) && e.free[i].base+e.free[i].count == e.free[i+1].base {
		e.free[i].count += e.free[i+1].count
		e.free = slices.Delete(e.free, i+1, i+2)
	}
	if i > 0 && e.free[i-1].base+e.free[i-1].count == e.free[i].base {
		e.free[i-1].count += e.free[i].count
		e.free = slices.Delete(e.free, i, i+1)
	}
}
