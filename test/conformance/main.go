// Command conformance runs the end-to-end suite of Kubernetes, unpatched,
// against a node of this product, and keeps what came out.
//
// The suite is k8s.io/kubernetes/test/e2e of the release that runs inside
// bothy, built by `make` from tools/e2e together with the ginkgo runner; its
// images are built from source by package images. Specs run in batches. After
// each batch the results are saved, so a run that was interrupted goes on where
// it stopped: a spec that has a result is not run again unless -again or
// -retry asks for it. The results are build/e2e/results.json, and -docs, or
// `conformance report` without a run, turns them into docs/conformance.md: how
// many passed, and for every spec that failed or was skipped, why.
//
// Run it with `make conformance`; it needs root. `make conformance-smoke` is a
// few specs of every part of Kubernetes, and part of `make test`.
//
// Map: specs.go asks the suite for its specs and select.go chooses among them;
// node.go boots the node; suite.go runs a batch and report.go reads ginkgo's
// report of it; registry.go serves the images to nodes; results.go keeps the
// results; table.go and reasons.go write the document.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/conformance/images"
)

type options struct {
	selection selection
	parallel  int
	batch     int
	limit     time.Duration
	list      bool
	again     bool
	retry     bool
	keep      bool
	docs      bool
	nodes     int
	results   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	paths, err := cluster.FindPaths()
	if err != nil {
		return err
	}
	dirs := newDirs(paths)
	if len(args) > 0 && args[0] == "images" {
		return buildImages(ctx, dirs, args[1:])
	}
	if len(args) > 0 && args[0] == "report" {
		return report(ctx, dirs)
	}
	var o options
	fl := flag.NewFlagSet("conformance", flag.ExitOnError)
	fl.StringVar(&o.selection.set, "set", "conformance", "which specs: "+strings.Join(setNames(), ", "))
	fl.StringVar(&o.selection.focus, "focus", "", "only specs whose text matches this regular expression")
	fl.StringVar(&o.selection.skip, "skip", "", "no specs whose text matches this regular expression")
	fl.StringVar(&o.selection.shard, "shard", "1/1", "the part of the specs to run, such as 2/3")
	fl.IntVar(&o.parallel, "parallel", 4, "specs that run at the same time; serial ones run alone")
	fl.IntVar(&o.batch, "batch", 24, "specs between two savings of the results")
	fl.DurationVar(&o.limit, "for", 0, "begin no batch after this long, and leave the rest to the next run; 0 is no limit")
	fl.BoolVar(&o.list, "list", false, "print the chosen specs and the results they have, and run nothing")
	fl.BoolVar(&o.again, "again", false, "run all chosen specs, those with a result too")
	fl.BoolVar(&o.retry, "retry", false, "run those that failed again, too")
	fl.BoolVar(&o.keep, "keep", false, "leave the node running at the end; the next run uses it")
	fl.BoolVar(&o.docs, "docs", false, "write docs/conformance.md from the results")
	fl.IntVar(&o.nodes, "nodes", 2, "how many nodes: a control plane, and workers; what fewer nodes had skipped is run")
	fl.StringVar(&o.results, "results", dirs.results, "file that keeps the results")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if fl.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", fl.Arg(0))
	}
	return run(ctx, o, dirs)
}

func run(ctx context.Context, o options, d dirs) error {
	specs, err := d.specs(ctx)
	if err != nil {
		return err
	}
	chosen, err := o.selection.from(specs)
	if err != nil {
		return err
	}
	kept, err := openResults(o.results)
	if err != nil {
		return err
	}
	if o.list {
		return list(os.Stdout, chosen, kept)
	}
	todo := pending(chosen, kept, o)
	if err := runAll(ctx, o, d, todo, kept); err != nil {
		return err
	}
	if o.docs {
		if err := writeDocument(d, specs, kept); err != nil {
			return err
		}
	}
	return verdict(chosen, kept, o.results)
}

// report is `conformance report`: the document from the results as they are.
func report(ctx context.Context, d dirs) error {
	specs, err := d.specs(ctx)
	if err != nil {
		return err
	}
	kept, err := openResults(d.results)
	if err != nil {
		return err
	}
	return writeDocument(d, specs, kept)
}

// pending are the specs that have no result yet, are to be run again, or were skipped on a cluster of fewer nodes.
func pending(chosen []spec, kept *results, o options) []spec {
	if o.again {
		return chosen
	}
	var out []spec
	for _, s := range chosen {
		r, ok := kept.Specs[s.Text]
		if !ok || o.retry && r.State == failed || r.State == skipped && r.Nodes < o.nodes {
			out = append(out, s)
		}
	}
	return out
}

func runAll(ctx context.Context, o options, d dirs, todo []spec, kept *results) (err error) {
	if len(todo) == 0 {
		return nil
	}
	node, err := startNode(ctx, d, o.nodes)
	if err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, node.Stop(context.WithoutCancel(ctx), true)) }()
	}
	suite, err := newSuite(ctx, d, node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, suite.close()) }()
	reg, err := openRegistry(d.layout)
	if err != nil {
		return err
	}
	if err := reg.start(ctx, node); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	if todo, err = suite.leaveOut(todo, kept); err != nil {
		return err
	}
	start, done := time.Now(), 0
	for _, b := range batches(todo, o.batch, o.parallel) {
		if o.limit != 0 && time.Since(start) > o.limit {
			return nil
		}
		fmt.Fprintf(os.Stderr, "%s  %d of %d done, the next %d, %d at a time\n", now(), done, len(todo), len(b.specs), b.parallel)
		if err := suite.run(ctx, b, kept); err != nil {
			return err
		}
		done += len(b.specs)
	}
	return nil
}

// verdict is an error if one of the chosen specs failed or has no result.
func verdict(chosen []spec, kept *results, file string) error {
	count := map[state]int{}
	for _, s := range chosen {
		count[kept.Specs[s.Text].State]++
	}
	fmt.Printf("%d specs: %d passed, %d failed, %d skipped, %d without a result\n",
		len(chosen), count[passed], count[failed], count[skipped], count[""])
	if n := count[failed] + count[""]; n > 0 {
		return fmt.Errorf("%d specs failed or have no result; see %s", n, file)
	}
	return nil
}

// dirs says where the suite is and where its results go.
type dirs struct {
	cluster.Paths
	ginkgo, suite, layout, failures, specsFile, results, changes string
}

func newDirs(p cluster.Paths) dirs {
	e2e := filepath.Join(p.Root, "build", "e2e")
	return dirs{
		Paths: p, ginkgo: filepath.Join(e2e, "ginkgo"), suite: filepath.Join(e2e, "e2e.test"),
		layout: filepath.Join(e2e, "images"), failures: filepath.Join(e2e, "failures"),
		specsFile: filepath.Join(e2e, "specs.json"), results: filepath.Join(e2e, "results.json"),
		changes: filepath.Join(e2e, "images.md"),
	}
}

// buildImages is `conformance images`, which make runs once.
func buildImages(ctx context.Context, d dirs, args []string) error {
	o := images.Options{
		Layout:   d.layout,
		Programs: filepath.Join(d.Root, "build", "e2e", "programs"),
		Packages: filepath.Join(d.Root, "build", "e2e", "packages"),
	}
	fl := flag.NewFlagSet("conformance images", flag.ExitOnError)
	fl.StringVar(&o.Sources, "sources", "", "directory of the module k8s.io/kubernetes")
	if err := fl.Parse(args); err != nil {
		return err
	}
	list, err := images.Build(ctx, o)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintln(&b, "| image | change |\n|---|---|")
	for _, img := range list {
		fmt.Fprintf(&b, "| %s | %s |\n", img.Name, img.Change)
	}
	return os.WriteFile(d.changes, []byte(b.String()), 0o644)
}
