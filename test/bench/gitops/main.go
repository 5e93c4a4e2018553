// Command gitops measures the way from a push to the cluster: ours, and that of
// Flux's own source-controller and kustomize-controller, built from their
// release and run as processes against the same API server, with the same
// repository, in turns.
//
//	push    one change pushed: until that one is applied
//	all     one push that changes everything: until everything is Ready
//	ready   Kustomizations created: until all are Ready
//	drift   an object changed by hand: until it is as before
//	idle    CPU, memory, writes and API requests while nothing changes
//	scale   2 000 objects and 10 000 signed commits (ours only)
//
// Flux has its best case: its artifacts and temporary files are on tmpfs, its
// logs are off, it reads the repository without TLS and verifies nothing.
//
// Run it with `make bench-gitops`, on a machine that does nothing else. It needs
// root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

type options struct {
	measures []string
	sides    []string
	sizes    []int

	pushes   int
	budget   time.Duration
	rounds   int
	drifts   int
	idleSize int
	settle   time.Duration
	window   time.Duration
	long     time.Duration

	objects, commits int

	json  string
	write bool
}

func main() {
	var o options
	measures := flag.String("measure", "push,all,ready,drift,idle,scale", "what to measure")
	sides := flag.String("sides", ours+","+flux, "whom to measure")
	sizes := flag.String("n", "20,100,500", "numbers of Kustomizations")
	short := flag.Bool("short", false, "few and short measurements, to see that they work")
	flag.IntVar(&o.pushes, "pushes", 30, "pushes of one change, for each number of Kustomizations")
	flag.DurationVar(&o.budget, "budget", 8*time.Minute, "time after which a side gets no more pushes at a number of Kustomizations, once it has had five")
	flag.IntVar(&o.rounds, "rounds", 3, "times that Kustomizations are created, and that everything is changed")
	flag.IntVar(&o.drifts, "drifts", 30, "objects changed by hand")
	flag.IntVar(&o.idleSize, "idle-n", 100, "number of Kustomizations of the measurements of drift and idling")
	flag.DurationVar(&o.settle, "settle", 30*time.Second, "time before an idle measurement")
	flag.DurationVar(&o.window, "window", 2*time.Minute, "length of an idle measurement with an interval of 1m")
	flag.DurationVar(&o.long, "long-window", 10*time.Minute, "length of an idle measurement with an interval of 10m")
	flag.IntVar(&o.objects, "objects", 2000, "objects of the measurement of scale")
	flag.IntVar(&o.commits, "commits", 10000, "commits of the measurement of scale")
	flag.StringVar(&o.json, "json", "", "file for the measurements (default build/bench-gitops.json)")
	flag.BoolVar(&o.write, "write", false, "write the report to docs/measurements.md")
	flag.Parse()
	err := o.complete(*measures, *sides, *sizes, *short)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) complete(measures, sides, sizes string, short bool) error {
	o.measures, o.sides = strings.Split(measures, ","), strings.Split(sides, ",")
	for _, m := range o.measures {
		if !slices.Contains([]string{"push", "all", "ready", "drift", "idle", "scale"}, m) {
			return fmt.Errorf("-measure: %q is none of push, all, ready, drift, idle, scale", m)
		}
	}
	for _, s := range o.sides {
		if s != ours && s != flux {
			return fmt.Errorf("-sides: %q is neither %s nor %s", s, ours, flux)
		}
	}
	for _, text := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-n: %q is not a number of Kustomizations", text)
		}
		o.sizes = append(o.sizes, n)
	}
	if short {
		o.sizes, o.pushes, o.rounds, o.drifts, o.idleSize = []int{10}, 5, 1, 5, 10
		o.settle, o.window, o.long = 2*time.Second, 5*time.Second, 5*time.Second
		o.objects, o.commits = 200, 200
	}
	return nil
}

func (o *options) measure(name string) bool { return slices.Contains(o.measures, name) }

func run(ctx context.Context, o options) (err error) {
	paths, err := cluster.FindPaths()
	if err != nil {
		return err
	}
	if why := paths.Missing(); why != "" {
		return errors.New(why)
	}
	if o.json == "" {
		o.json = filepath.Join(paths.Root, "build", "bench-gitops.json")
	}
	dir := filepath.Join(paths.Runs, "bench-gitops")
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("%s is there from an earlier run: remove it with hack/clean-runs.sh", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	r := newReport(o)
	if slices.ContainsFunc(o.measures, func(m string) bool { return m != "scale" }) {
		if err := compare(ctx, o, paths, filepath.Join(dir, "compare"), r); err != nil {
			return err
		}
	}
	if o.measure("scale") {
		if err := scale(ctx, o, paths, filepath.Join(dir, "scale"), r); err != nil {
			return fmt.Errorf("scale: %w", err)
		}
	}
	r.print(os.Stdout)
	if err := r.save(o.json); err != nil {
		return err
	}
	if o.write {
		return r.writeTo(filepath.Join(paths.Root, "docs", "measurements.md"))
	}
	return nil
}

// progress is for who watches.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
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
