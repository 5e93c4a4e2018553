package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/figures"
)

// report collects measurements and prints them as Markdown.
type report struct {
	options options
	// Machine and At say where and when.
	Machine, At, Commit string
	// Seconds by measure, number of Kustomizations and side.
	Seconds map[string]map[int]map[string][]float64
	Idle    map[string][]idleFigures
	Scale   *scaleFigures `json:",omitempty"`
}

func newReport(o options) *report {
	return &report{
		options: o, Machine: figures.Machine(), At: time.Now().UTC().Format("2006-01-02 15:04 MST"), Commit: figures.Commit(),
		Seconds: map[string]map[int]map[string][]float64{}, Idle: map[string][]idleFigures{},
	}
}

func (r *report) add(measure, side string, n int, d time.Duration) {
	if r.Seconds[measure] == nil {
		r.Seconds[measure] = map[int]map[string][]float64{}
	}
	if r.Seconds[measure][n] == nil {
		r.Seconds[measure][n] = map[string][]float64{}
	}
	r.Seconds[measure][n][side] = append(r.Seconds[measure][n][side], d.Seconds())
}

func (r *report) idle(side string, f idleFigures) { r.Idle[side] = append(r.Idle[side], f) }

func (r *report) save(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// titles of the measures of time, in the order of the report.
var titles = []struct{ measure, title string }{
	{"push", "one change pushed, until it is applied"},
	{"all", "one push that changes all, until all are Ready"},
	{"ready", "Kustomizations created, until all are Ready"},
	{"drift", "an object changed by hand, until it is as before (interval 1m)"},
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "Measured %s at commit %s on %s, load %s at the end.\n", r.At, r.Commit, r.Machine, figures.Load())
	if len(r.Seconds) > 0 {
		fmt.Fprint(w, "\nFlux is source-controller and kustomize-controller of its release as processes with default settings, artifacts and\n"+
			"temporary files on tmpfs, against the same API server, in turns. Kustomizations are of 4 objects. Seconds.\n\n")
		r.printTimes(w)
	}
	if len(r.Idle) > 0 {
		fmt.Fprintf(w, "\nIdle, with %d Kustomizations, one side at a time; bothy's processes above what they need with none. Neither side\n"+
			"polls the repository meanwhile. What Flux writes to tmpfs is not counted.\n\n", r.options.idleSize)
		r.printIdle(w)
	}
	if r.Scale != nil {
		r.Scale.print(w)
	}
}

func (r *report) printTimes(w io.Writer) {
	t := figures.NewTable(w, "", "N", "side", "p50", "p99", "least to most", "measured", "bothy / flux, p50")
	for _, m := range titles {
		for _, n := range slices.Sorted(maps.Keys(r.Seconds[m.measure])) {
			sides := r.Seconds[m.measure][n]
			for _, side := range []string{ours, flux} {
				v := slices.Sorted(slices.Values(sides[side]))
				if len(v) == 0 {
					continue
				}
				ratio := ""
				if side == ours && len(sides[flux]) > 0 {
					ratio = fmt.Sprintf("%.3f", figures.Percentile(v, 50)/figures.Percentile(sides[flux], 50))
				}
				t.Row(m.title, fmt.Sprint(n), side, seconds(figures.Percentile(v, 50)), seconds(figures.Percentile(v, 99)),
					seconds(v[0])+" to "+seconds(v[len(v)-1]), fmt.Sprint(len(v)), ratio)
			}
		}
	}
	t.Flush()
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

func (r *report) printIdle(w io.Writer) {
	t := figures.NewTable(w, "", "interval", "process", "CPU, % of a core", "RSS, MB", "PSS, MB", "written, MB/h", "API reads/min", "API writes/min")
	var empty idleFigures
	if e := r.Idle["empty"]; len(e) > 0 {
		empty = e[0]
		empty.print(t, "none", "-", idleFigures{})
	}
	for _, side := range []string{ours, flux} {
		for _, f := range r.Idle[side] {
			f.print(t, side, f.Interval.String(), empty)
		}
	}
	t.Flush()
}

// print adds a row for each process: what it used more than in base.
func (f *idleFigures) print(t *figures.Table, label, interval string, base idleFigures) {
	reads, writes := fmt.Sprintf("%.1f", f.Reads-base.Reads), fmt.Sprintf("%.1f", f.Writes-base.Writes)
	for _, process := range slices.Sorted(maps.Keys(f.CPU)) {
		name := process
		if _, known := base.CPU[process]; known {
			name += ", more than with none"
		}
		more := func(of, base map[string]float64, unit float64) string {
			return fmt.Sprintf("%.2f", (of[process]-base[process])/unit)
		}
		t.Row(label, interval, name, more(f.CPU, base.CPU, 1), more(f.RSS, base.RSS, 1e6), more(f.PSS, base.PSS, 1e6), more(f.Written, base.Written, 1e6), reads, writes)
		label, interval, reads, writes = "", "", "", ""
	}
}

// heading is where the report goes in the document.
const heading = "\n## From a push to the cluster\n"

// writeTo replaces the report in the document, which ends with it.
func (r *report) writeTo(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, _, _ := bytes.Cut(old, []byte(heading))
	var b bytes.Buffer
	b.Write(bytes.TrimRight(head, "\n"))
	b.WriteString("\n" + heading + "\n`make bench-gitops` prints this.\n\n")
	r.print(&b)
	return os.WriteFile(path, b.Bytes(), 0o644)
}
