package policy

import (
	"fmt"
	"slices"
)

// numbers gives things of one kind numbers that mean the same from one plan to the next. A number
// is not given to something else before [numbers.keep] says that nobody uses it.
type numbers struct {
	what  string
	limit uint32
	last  uint32
	of    map[string]uint32
	taken map[uint32]bool
}

// newNumbers avoids the numbers an earlier agent gave, which are in the tables.
func newNumbers(what string, limit uint32, inTables []uint32) *numbers {
	n := &numbers{what: what, limit: limit, of: map[string]uint32{}, taken: map[uint32]bool{}}
	for _, number := range inTables {
		n.taken[number] = true
	}
	if len(inTables) > 0 {
		n.last = slices.Max(inTables)
	}
	return n
}

// get returns the number of a thing, from 1 on.
func (n *numbers) get(thing string) (uint32, error) {
	if number, ok := n.of[thing]; ok {
		return number, nil
	}
	if len(n.taken) >= int(n.limit) {
		return 0, fmt.Errorf("more than %d %s", n.limit, n.what)
	}
	for {
		n.last++
		if n.last > n.limit {
			n.last = 1
		}
		if !n.taken[n.last] {
			n.of[thing], n.taken[n.last] = n.last, true
			return n.last, nil
		}
	}
}

// keep frees the numbers of all other things.
func (n *numbers) keep(used map[string]bool) {
	clear(n.taken)
	for thing, number := range n.of {
		if used[thing] {
			n.taken[number] = true
		} else {
			delete(n.of, thing)
		}
	}
}
