package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// pollInterval is short against what is waited for and long against the cost
// of looking.
const pollInterval = 200 * time.Millisecond

// Poll calls condition until it returns nil, at least once, and returns its
// last error when the time is up.
func Poll(ctx context.Context, within time.Duration, what string, condition func() error) error {
	start := time.Now()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-deadline.C:
			return fmt.Errorf("waited %s for %s in vain: %w", time.Since(start).Round(time.Second), what, err)
		case <-tick.C:
		}
	}
}

// Eventually fails the test unless condition returns nil within the time given.
func Eventually(t testing.TB, within time.Duration, what string, condition func() error) {
	t.Helper()
	start := time.Now()
	if err := Poll(t.Context(), within, what, condition); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Logf("waited %.1f s for %s", took.Seconds(), what)
	}
}

// Never fails the test if condition returns an error at any time within the
// time given: what must hold while nothing is expected to happen.
func Never(t testing.TB, within time.Duration, what string, condition func() error) {
	t.Helper()
	done := time.NewTimer(within)
	defer done.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if err := condition(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-done.C:
			return
		case <-tick.C:
		}
	}
}
