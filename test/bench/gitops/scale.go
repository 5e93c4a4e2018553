package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/figures"
	"github.com/bothy-os/bothy/test/bench/internal/procfs"
	"github.com/bothy-os/bothy/test/cluster"
)

// scaleFigures are those of a large repository with a long history.
type scaleFigures struct {
	Objects, Commits int
	// FirstApply is how long all objects took on an empty cluster, all others
	// are of a site that has them: Fetch is from the request until the newest
	// commit was accepted, Git is git's own fetch of the same commits, Apply the
	// time from acceptance until everything was sent, Diff is one `bothy diff` of
	// a changed work tree, Verify one `bothy verify` of all commits. Seconds; zero
	// for what could not be measured, for the reason in Missing.
	FirstApply, Fetch, Git, Apply, Diff, Verify float64
	Missing                                     []string `json:",omitempty"`
	// Idle is the agent's resident memory before, MB; the others are how much
	// higher it rose meanwhile.
	Idle, FetchPeak, DiffPeak float64
}

func scale(ctx context.Context, o options, paths cluster.Paths, dir string, r *report) (err error) {
	f := &scaleFigures{Objects: o.objects, Commits: o.commits}
	files := map[string]string{"clusters/default/kustomization.yaml": scaleKustomization(o.objects)}
	for i := range (o.objects + objectsPerFile - 1) / objectsPerFile {
		files[scaleFile(i)] = scaleObjects(i, o.objects, 0)
	}
	repo, err := newRepository(ctx, paths, dir, files)
	if err != nil {
		return err
	}
	node := &cluster.Node{
		Paths: paths, Name: "bench", State: filepath.Join(dir, "state"),
		Args: []string{"--repo", "file://" + repo.bare, "--interval", never.String(), "--trust-root", filepath.Join(repo.tree, "trust", "root.yaml")},
	}
	defer func() { err = errors.Join(err, node.Stop(context.WithoutCancel(ctx), true)) }()
	if _, err := node.Start(ctx, nil); err != nil {
		return err
	}
	first, err := readGit(ctx, node)
	if err != nil {
		return err
	}
	f.FirstApply = first.Applied.Took.Seconds()
	progress("bothy  %d objects applied on an empty cluster in %.2f s", o.objects, f.FirstApply)

	before, err := repo.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	if err := repo.history(ctx, before, o.objects, o.commits); err != nil {
		return err
	}
	if f.Git, err = gitFetch(ctx, repo, before, filepath.Join(dir, "fetched.git")); err != nil {
		return err
	}
	if err := wait(ctx, o.settle); err != nil {
		return err
	}
	if err := f.fetch(ctx, node); err != nil {
		return err
	}
	if err := f.diff(ctx, node, repo); err != nil {
		return err
	}
	f.Verify = f.timed(ctx, node, "verify", repo.bare, "--from", before)
	r.Scale = f
	return nil
}

// fetch has the agent take in all commits at once.
func (f *scaleFigures) fetch(ctx context.Context, node *cluster.Node) error {
	peak, err := watchMemory(node)
	if err != nil {
		return err
	}
	start := time.Now()
	result, err := node.Bothy(ctx, io.Discard, "reconcile", "--wait")
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return fmt.Errorf("bothy reconcile: %s", result.Stderr)
	}
	git, err := readGit(ctx, node)
	if err != nil {
		return err
	}
	f.Fetch = git.Accepted.At.Sub(start).Seconds()
	f.Apply = git.Applied.At.Sub(git.Accepted.At).Seconds()
	if f.Idle, f.FetchPeak, err = peak.end(); err != nil {
		return err
	}
	progress("bothy  %d commits fetched and verified in %.2f s, applied in %.2f s, memory %.0f MB + %.0f MB", f.Commits, f.Fetch, f.Apply, f.Idle, f.FetchPeak)
	return nil
}

// diff asks what a work tree with one change would do.
func (f *scaleFigures) diff(ctx context.Context, node *cluster.Node, repo *repository) error {
	if _, err := repo.git(ctx, "pull", "--quiet", "--ff-only", "origin", "main"); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(repo.tree, scaleFile(0)), scaleObjects(0, f.Objects, f.Commits+1)); err != nil {
		return err
	}
	peak, err := watchMemory(node)
	if err != nil {
		return err
	}
	if f.Diff = f.timed(ctx, node, "diff", repo.tree); f.Diff == 0 {
		return nil
	}
	_, f.DiffPeak, err = peak.end()
	progress("bothy  diff of a work tree in %.2f s, memory + %.0f MB", f.Diff, f.DiffPeak)
	return err
}

// timed runs a bothy command and returns how long it took, in seconds, or zero
// if it failed.
func (f *scaleFigures) timed(ctx context.Context, node *cluster.Node, args ...string) float64 {
	start := time.Now()
	result, err := node.Bothy(ctx, nil, args...)
	switch {
	case err != nil:
		f.Missing = append(f.Missing, args[0]+": "+err.Error())
		return 0
	case result.Code != 0:
		f.Missing = append(f.Missing, args[0]+": "+firstLine(result.Stderr+result.Stdout))
		return 0
	}
	return time.Since(start).Seconds()
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// gitState is the part of `bothy status` that says when.
type gitState struct {
	Accepted struct{ At time.Time }
	Applied  struct {
		At   time.Time
		Took time.Duration
	}
}

func readGit(ctx context.Context, node *cluster.Node) (*gitState, error) {
	result, err := node.Bothy(ctx, nil, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var status struct{ Git gitState }
	if err := json.Unmarshal([]byte(result.Stdout), &status); err != nil {
		return nil, fmt.Errorf("decode bothy status: %w: %s", err, result.Stderr)
	}
	return &status.Git, nil
}

// gitFetch is what git itself needs for the same commits, unverified.
func gitFetch(ctx context.Context, repo *repository, have, bare string) (float64, error) {
	if _, err := runGit(ctx, repo.tree, nil, "init", "--quiet", "--bare", bare); err != nil {
		return 0, err
	}
	if _, err := runGit(ctx, bare, nil, "fetch", "--quiet", "file://"+repo.bare, have); err != nil {
		return 0, err
	}
	start := time.Now()
	_, err := runGit(ctx, bare, nil, "fetch", "--quiet", "file://"+repo.bare, "main:main")
	return time.Since(start).Seconds(), err
}

// memoryWatch looks how high the agent's memory rises.
type memoryWatch struct {
	pid    int
	before float64
}

func watchMemory(node *cluster.Node) (*memoryWatch, error) {
	p, err := node.Process("agent")
	if err != nil {
		return nil, err
	}
	// The kernel's high-water mark begins anew.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID), []byte("5"), 0o200); err != nil {
		return nil, err
	}
	status, err := procfs.KeyValues(fmt.Sprintf("/proc/%d/status", p.PID))
	return &memoryWatch{pid: p.PID, before: float64(status["VmRSS"]) * 1024 / 1e6}, err
}

// end returns the resident memory at the begin and how much higher it rose, MB.
func (m *memoryWatch) end() (before, rise float64, err error) {
	status, err := procfs.KeyValues(fmt.Sprintf("/proc/%d/status", m.pid))
	return m.before, float64(status["VmHWM"])*1024/1e6 - m.before, err
}

func (f *scaleFigures) print(w io.Writer) {
	fmt.Fprintf(w, "\nA repository with %d objects and %d signed commits. Seconds, MB.\n\n", f.Objects, f.Commits)
	t := figures.NewTable(w, "", "took", "agent's memory")
	cell := func(v float64, format string) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf(format, v)
	}
	t.Row("all objects applied on an empty cluster", cell(f.FirstApply, "%.2f"), "")
	t.Row("all commits fetched and verified", cell(f.Fetch, "%.2f"), fmt.Sprintf("%.0f + %.0f", f.Idle, f.FetchPeak))
	t.Row("the same fetched by git, unverified", cell(f.Git, "%.2f"), "")
	t.Row("what they change, applied", cell(f.Apply, "%.2f"), "")
	t.Row("`bothy diff` of a work tree with a change", cell(f.Diff, "%.2f"), cell(f.DiffPeak, "+ %.0f"))
	t.Row("`bothy verify` of all commits", cell(f.Verify, "%.2f"), "")
	t.Flush()
	for _, m := range f.Missing {
		fmt.Fprintf(w, "\nNot measured: %s\n", m)
	}
}
