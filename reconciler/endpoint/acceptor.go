package endpoint

import (
	"context"
	"io"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// Acceptor is the reconciler as the endpoint sees it. *reconciler.Reconciler is
// one.
type Acceptor interface {
	// Head returns the branch that the site follows and its accepted commit, ""
	// before the first.
	Head() (branch, commit string)
	// Push takes a pushed commit the way of a fetched one: its objects come in
	// with pack, under the limits of the mirror, then the rules judge it. Nil means
	// that it is now the accepted commit, on disk for good. A refusal is an
	// *acceptance.Refusal; other errors come from the pack or from this machine.
	// pack is nil if the push brings no objects, as when the mirror has them.
	Push(ctx context.Context, tip string, pack io.Reader) error
	// Mirror is where the accepted commit can be read; nil before it is open.
	Mirror() *mirror.Mirror
}
