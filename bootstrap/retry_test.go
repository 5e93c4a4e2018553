package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A machine may be so slow that the roles take minutes: the server waits for them, and says so.
func TestInsistOutlastsASlowMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		insist(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), "the default roles", func(context.Context) error {
			if time.Since(start) < 5*time.Minute {
				return errors.New("etcd is busy")
			}
			return nil
		})
		if took := time.Since(start); took < 5*time.Minute || took > 5*time.Minute+2*insistPause {
			t.Errorf("it ended after %s", took)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) < 200 || len(lines) > 300 || !strings.Contains(lines[0], "the default roles") || !strings.Contains(lines[0], "etcd is busy") {
			t.Errorf("%d lines, the first: %s", len(lines), lines[0])
		}
	})
}

// What is not there at the first look is no news, and is looked for again soon.
func TestInsistIsEagerAndQuietAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start, attempts := time.Now(), 0
		insist(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), "the default roles", func(context.Context) error {
			if attempts++; attempts < 4 {
				return errors.New("no such namespace")
			}
			return nil
		})
		if took := time.Since(start); took != 3*retryEager || out.Len() > 0 {
			t.Errorf("it took %s and said %q", took, out.String())
		}
	})
}

// A server that is stopped while it waits ends in peace.
func TestInsistEndsWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		insist(ctx, slog.New(slog.DiscardHandler), "the default roles", func(context.Context) error {
			return errors.New("etcd is busy")
		})
		if ctx.Err() == nil {
			t.Error("it gave up before the server did")
		}
	})
}

// What takes longer than the patience for failures is still let finish.
func TestRetryForCutsNoAttemptShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := retryFor(t.Context(), 10*time.Second, func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestRetryForGivesUpWhenTheTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, refused := time.Now(), errors.New("no such kind")
		err := retryFor(t.Context(), 10*time.Second, func(context.Context) error { return refused })
		if took := time.Since(start); !errors.Is(err, refused) || took != 10*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
