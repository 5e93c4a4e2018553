package apply

import (
	"context"
	"slices"
)

// Record is an inventory: what was, or may have been, sent to the cluster.
type Record struct {
	// Commit is the last commit that was applied whole, Size the number of its
	// objects; empty before the first.
	Commit  string `json:"commit,omitempty"`
	Size    int    `json:"size"`
	Objects []ID   `json:"objects"`
	// Added are those of the objects that came after Commit, with commits that
	// were never applied whole: deleting them again is no loss.
	Added []ID `json:"added,omitempty"`
}

// InventoryStore keeps the inventory of one engine. It is used by one goroutine
// at a time.
//
// Load returns an empty record if there is none. Save must not return before
// the record would survive a crash: the engine sends objects only after they
// are recorded. Errors of either that wrap ErrUnavailable are tried again.
type InventoryStore interface {
	Load(ctx context.Context) (Record, error)
	Save(ctx context.Context, r Record) error
}

// sort puts the record into an order that depends on its content alone.
func (r *Record) sort() {
	slices.SortFunc(r.Objects, ID.compare)
	slices.SortFunc(r.Added, ID.compare)
}
