package mirror

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// leastRate is what a server must send once it sends a pack, in bytes per
// second. Slower links than this do not carry a repository.
const leastRate = 64

// watchdog ends a fetch whose server keeps the connection open and sends next
// to nothing, so that one such server does not keep the site from asking the
// next.
type watchdog struct {
	stall  time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
	bytes  atomic.Int64
	paced  atomic.Bool  // a pack is being sent
	waits  atomic.Int32 // readers that wait for the server now
}

// watched returns a context that ends when nothing worth mentioning arrived for
// the given time.
func watched(parent context.Context, stall time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &watchdog{stall: stall, ctx: ctx, cancel: cancel}
	go w.run()
	return ctx, w
}

func (w *watchdog) run() {
	tick := time.NewTicker(max(w.stall/2, time.Millisecond))
	defer tick.Stop()
	last, waited := int64(0), false
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
		now, least := w.bytes.Load(), int64(1)
		if w.paced.Load() {
			least = max(1, int64(leastRate*w.stall.Seconds()/2))
		}
		// Time that goes into looking at what came is not the server's.
		waits := w.waits.Load() > 0
		if now-last < least && waits && waited {
			w.cancel(ErrStalled)
			return
		}
		last, waited = now, waits
	}
}

func (w *watchdog) stop() { w.cancel(nil) }

// explain replaces the error of an interrupted connection by the reason for
// the interruption.
func (w *watchdog) explain(err error) error {
	if cause := context.Cause(w.ctx); err != nil && errors.Is(cause, ErrStalled) {
		return cause
	}
	return err
}

// count passes a reader through, counting.
func (w *watchdog) count(r io.Reader) io.Reader { return &counted{r, w} }

// pack is count for a pack, which must arrive at some rate.
func (w *watchdog) pack(r io.Reader) io.Reader {
	w.paced.Store(true)
	return w.count(r)
}

type counted struct {
	r io.Reader
	w *watchdog
}

func (c *counted) Read(p []byte) (int, error) {
	if c.w.ctx.Err() != nil {
		return 0, context.Cause(c.w.ctx)
	}
	c.w.waits.Add(1)
	n, err := c.r.Read(p)
	c.w.waits.Add(-1)
	c.w.bytes.Add(int64(n))
	return n, err
}
