package bootstrap

import (
	"context"
	"log/slog"
	"time"
)

const (
	// insistQuiet is how long something may fail without a word. At a first start the
	// namespaces of some roles come a moment later than the roles.
	insistQuiet = 10 * time.Second
	// retryEager is the pause between attempts at first, insistPause the one after insistQuiet.
	retryEager  = 50 * time.Millisecond
	insistPause = time.Second
)

// insist tries until it works or ctx ends.
//
// A hook that fails ends the process, which is what upstream does when the roles are
// not there after 30 seconds. A machine that is slow would begin again with everything,
// and be no faster. Here the server is just not ready yet, and the log says why.
func insist(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error) {
	start, pause := time.Now(), retryEager
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if took := time.Since(start); took > insistQuiet {
			log.Warn("the API server still waits for "+what, "for", took.Round(time.Second), "err", err)
			pause = insistPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// retryFor tries until it works, and returns the last error when the time is up. An attempt
// that is under way then goes on to its end: on a slow machine each one would be cut short.
func retryFor(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	for start := time.Now(); ; {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || time.Since(start) >= limit {
			return err
		}
		select {
		case <-time.After(retryEager):
		case <-ctx.Done():
			return err
		}
	}
}
