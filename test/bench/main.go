// Command bench prints what a node costs: how long it takes to start, how much
// memory, CPU and disk writes it needs when idle; beside the same versions as
// separate upstream processes, built from the same modules and started
// alternately with it on the same machine.
//
// Run it with `make bench`, on a machine that does nothing else. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// system is something that runs the example workload.
type system interface {
	name() string
	// start returns when the workload answers. Cold starts have no state.
	start(ctx context.Context) (times, error)
	// pids are all processes of the system but those of the workload.
	pids() (map[int]string, error)
	// stop ends it and keeps its state; purge removes that too.
	stop(ctx context.Context) error
	purge(ctx context.Context) error
}

// times are seconds since the exec of the first process.
type times struct{ api, node, workload float64 }

type options struct {
	runs   int
	settle time.Duration
	window time.Duration
	write  bool
	alone  bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "cold and warm starts of each system")
	flag.DurationVar(&o.settle, "settle", time.Minute, "time between the last start and the idle measurement")
	flag.DurationVar(&o.window, "window", time.Minute, "length of the idle measurement")
	flag.BoolVar(&o.write, "write", false, "write the report to docs/measurements.md")
	flag.BoolVar(&o.alone, "alone", false, "measure bothy only, not the separate upstream processes")
	flag.Parse()
	if len(os.Args) > 1 && os.Args[1] == peerInit {
		if err := runPeerInit(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	paths, err := cluster.FindPaths()
	if err != nil {
		return err
	}
	if why := paths.Missing(); why != "" {
		return errors.New(why)
	}
	dir := filepath.Join(paths.Runs, "bench")
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("%s is there from an earlier run: remove it with hack/clean-runs.sh", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours, err := newOurs(ctx, paths, filepath.Join(dir, "bothy"))
	if err != nil {
		return err
	}
	systems := []system{ours}
	if !o.alone {
		peers, err := newPeers(paths, filepath.Join(dir, "peers"))
		if err != nil {
			return err
		}
		systems = append(systems, peers)
	}
	r := newReport(o)
	for _, s := range systems {
		defer func() { err = errors.Join(err, s.purge(context.WithoutCancel(ctx))) }()
	}
	if err := starts(ctx, o, systems, r); err != nil {
		return err
	}
	for _, s := range systems {
		if err := idle(ctx, o, s, r); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	if o.write {
		return r.writeTo(filepath.Join(paths.Root, "docs", "measurements.md"))
	}
	return nil
}

// starts measures cold and warm starts, the systems taking turns.
func starts(ctx context.Context, o options, systems []system, r *report) error {
	for i := range o.runs {
		for _, s := range systems {
			if err := s.purge(ctx); err != nil {
				return fmt.Errorf("%s: clear away: %w", s.name(), err)
			}
			for _, kind := range []string{"cold", "warm"} {
				settleDisk()
				t, err := s.start(ctx)
				if err != nil {
					return fmt.Errorf("%s: %s start: %w", s.name(), kind, err)
				}
				r.addStart(s.name(), kind, t)
				fmt.Fprintf(os.Stderr, "%s  run %d of %d  %-18s %s  API %.2f s, node %.2f s, workload %.2f s\n",
					time.Now().Format(time.TimeOnly), i+1, o.runs, s.name(), kind, t.api, t.node, t.workload)
				if err := s.stop(ctx); err != nil {
					return fmt.Errorf("%s: stop: %w", s.name(), err)
				}
			}
		}
	}
	return nil
}

// idle measures a system that has nothing to do.
func idle(ctx context.Context, o options, s system, r *report) error {
	if _, err := s.start(ctx); err != nil {
		return fmt.Errorf("%s: start: %w", s.name(), err)
	}
	fmt.Fprintf(os.Stderr, "%s  %s settles for %s, then is watched for %s\n", time.Now().Format(time.TimeOnly), s.name(), o.settle, o.window)
	if err := wait(ctx, o.settle); err != nil {
		return err
	}
	before, err := sample(s)
	if err != nil {
		return err
	}
	if err := wait(ctx, o.window); err != nil {
		return err
	}
	after, err := sample(s)
	if err != nil {
		return err
	}
	r.addIdle(s.name(), before, after)
	return s.purge(ctx)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// settleDisk keeps the writes of one run out of the next.
func settleDisk() { syscall.Sync() }
