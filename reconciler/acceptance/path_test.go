package acceptance_test

import (
	"github.com/bothy-os/bothy/internal/signers"
)

// firstOf remembers the last commit visited, which is the repository's first.
func firstOf(id *string) func(string, *signers.Commit) bool {
	return func(at string, _ *signers.Commit) bool {
		*id = at
		return true
	}
}
