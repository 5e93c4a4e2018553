// Package elect chooses one node out of several without asking anybody.
//
// Every node ranks the candidates for a subject by a hash of both and takes the first. Nodes that
// see the same candidates agree; nothing is written, and when a candidate goes only its
// own subjects move. Nodes that see different candidates may disagree for as long as that
// lasts: callers must do no lasting harm then.
//
// The package must not know what is elected for.
package elect

import (
	"hash/fnv"
)

// First returns the candidate that is elected for a subject, "" if there is none.
func First(subject string, candidates []string) string {
	var best string
	var top uint64
	for _, c := range candidates {
		if r := rank(subject, c); best == "" || r > top || r == top && c < best {
			best, top = c, r
		}
	}
	return best
}

func rank(subject, candidate string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(candidate + "\x00" + subject)) // a hash never fails
	x := h.Sum64()
	// Spread what differs in the last characters only.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
