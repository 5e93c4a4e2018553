package acceptance

import (
	"context"
	"runtime"

	"github.com/bothy-os/bothy/internal/signers"
)

// readAhead reads commits and checks their signatures before their turn, on as
// many processors as there are. It guesses that the trust root stays the same;
// who finds that it changed checks again.
type readAhead struct {
	cancel context.CancelFunc
	queue  chan chan aheadCommit
}

// aheadCommit is a commit with what its signature is worth by ring.
type aheadCommit struct {
	commit *signers.Commit
	err    error // of reading
	ring   *signers.Keyring
	signer *signers.Verified
	bad    error // of the signature
}

// maxAhead bounds the commits in memory beside the one being judged.
const maxAhead = 64

// newReadAhead begins with the last id of the path. The caller closes it.
func (v *Verifier) newReadAhead(ctx context.Context, path []string, ring *signers.Keyring) *readAhead {
	ctx, cancel := context.WithCancel(ctx)
	workers := min(runtime.GOMAXPROCS(0), len(path))
	a := &readAhead{cancel: cancel, queue: make(chan chan aheadCommit, maxAhead)}
	busy := make(chan struct{}, workers)
	now := v.now()
	go func() {
		defer close(a.queue)
		for i := len(path) - 1; i >= 0; i-- {
			answer := make(chan aheadCommit, 1)
			select {
			case a.queue <- answer:
			case <-ctx.Done():
				return
			}
			select {
			case busy <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-busy }()
				got := aheadCommit{ring: ring}
				if got.commit, got.err = readCommit(v.objects, path[i]); got.err == nil {
					got.signer, got.bad = ring.Verify(got.commit, now)
				}
				answer <- got
			}()
		}
	}()
	return a
}

// next returns the next commit.
func (a *readAhead) next(ctx context.Context) (aheadCommit, error) {
	select {
	case answer, ok := <-a.queue:
		if !ok {
			return aheadCommit{}, ctx.Err()
		}
		select {
		case got := <-answer:
			return got, got.err
		case <-ctx.Done():
			return aheadCommit{}, ctx.Err()
		}
	case <-ctx.Done():
		return aheadCommit{}, ctx.Err()
	}
}

func (a *readAhead) close() { a.cancel() }
