package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/figures"
)

// report collects measurements and prints them as Markdown.
type report struct {
	options options
	order   []string
	starts  map[string]map[string][]times
	idles   map[string]idleFigures
}

// idleFigures are those of a system that has nothing to do.
type idleFigures struct {
	window    time.Duration
	pss, rss  map[string]int64 // bytes by process name
	cpu       float64          // per cent of one core
	perHour   float64          // bytes written
	anonymous int64            // bytes
}

func newReport(o options) *report {
	return &report{options: o, starts: map[string]map[string][]times{}, idles: map[string]idleFigures{}}
}

func (r *report) addStart(system, kind string, t times) {
	if r.starts[system] == nil {
		r.order = append(r.order, system)
		r.starts[system] = map[string][]times{}
	}
	r.starts[system][kind] = append(r.starts[system][kind], t)
}

func (r *report) addIdle(system string, before, after snapshot) {
	f := idleFigures{window: after.at.Sub(before.at), pss: map[string]int64{}, rss: map[string]int64{}}
	var cpu time.Duration
	var written int64
	for pid, now := range after.processes {
		f.pss[now.name] += now.PSS
		f.rss[now.name] += now.RSS
		f.anonymous += now.Anonymous
		was := before.processes[pid] // zero for one that is new
		cpu += now.CPU - was.CPU
		written += now.Written - was.Written
	}
	f.cpu = 100 * cpu.Seconds() / f.window.Seconds()
	f.perHour = float64(written) / f.window.Hours()
	r.idles[system] = f
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "Measured %s at commit %s on %s, load %s before the end.\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), figures.Commit(), figures.Machine(), figures.Load())
	if len(r.order) == 2 {
		fmt.Fprint(w, "The separate processes are etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and containerd with upstream's\n"+
			"default settings. They have no DNS, Services, metrics API, volumes or Git, all of which are part of bothy's figures.\n\n")
	}
	fmt.Fprintf(w, "Start, seconds: median (least to most) of %d runs.\n\n", r.options.runs)
	r.printStarts(w)
	fmt.Fprintf(w, "\nIdle, over %s after %s of settling, with one workload.\n\n", r.options.window, r.options.settle)
	r.printIdle(w)
	fmt.Fprint(w, "\nMemory by process, MiB.\n\n")
	r.printProcesses(w)
}

func (r *report) printStarts(w io.Writer) {
	t := figures.NewTable(w, "", "API ready", "node Ready", "workload answers")
	for _, kind := range []string{"cold", "warm"} {
		for _, system := range r.order {
			runs := r.starts[system][kind]
			t.Row(system+", "+kind, spread(runs, api), spread(runs, node), spread(runs, workload))
		}
		if len(r.order) == 2 {
			a, b := r.starts[r.order[0]][kind], r.starts[r.order[1]][kind]
			t.Row("ratio, "+kind, figures.Ratio(median(a, api), median(b, api)), figures.Ratio(median(a, node), median(b, node)), figures.Ratio(median(a, workload), median(b, workload)))
		}
	}
	t.Flush()
}

func (r *report) printIdle(w io.Writer) {
	t := figures.NewTable(w, "", "PSS, MB", "RSS, MB", "anonymous, MB", "CPU, % of a core", "written, MB/h")
	columns := func(f idleFigures) []float64 {
		return []float64{megabytes(sum(f.pss)), megabytes(sum(f.rss)), megabytes(f.anonymous), f.cpu, f.perHour / 1e6}
	}
	for _, system := range r.order {
		cells := []string{system}
		for _, v := range columns(r.idles[system]) {
			cells = append(cells, fmt.Sprintf("%.1f", v))
		}
		t.Row(cells...)
	}
	if len(r.order) == 2 {
		a, b := columns(r.idles[r.order[0]]), columns(r.idles[r.order[1]])
		cells := []string{"ratio"}
		for i := range a {
			cells = append(cells, figures.Ratio(a[i], b[i]))
		}
		t.Row(cells...)
	}
	t.Flush()
}

func (r *report) printProcesses(w io.Writer) {
	t := figures.NewTable(w, "", "process", "PSS", "RSS")
	for _, system := range r.order {
		f := r.idles[system]
		names := make([]string, 0, len(f.pss))
		for name := range f.pss {
			names = append(names, name)
		}
		sort.Slice(names, func(i, j int) bool { return f.pss[names[i]] > f.pss[names[j]] })
		for _, name := range names {
			t.Row(system, name, fmt.Sprintf("%.1f", float64(f.pss[name])/(1<<20)), fmt.Sprintf("%.1f", float64(f.rss[name])/(1<<20)))
		}
	}
	t.Flush()
}

// writeTo replaces what stands below the line in the file.
func (r *report) writeTo(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const line = "\n---\n"
	head, _, ok := bytes.Cut(old, []byte(line))
	if !ok {
		return fmt.Errorf("%s has no line --- below which the report goes", path)
	}
	var b bytes.Buffer
	b.Write(head)
	b.WriteString(line + "\n")
	r.print(&b)
	// The other benchmark's section stands below ours.
	const other = "\n## From a push to the cluster\n"
	if _, rest, ok := bytes.Cut(old, []byte(other)); ok {
		b.WriteString(other)
		b.Write(rest)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func api(t times) float64      { return t.api }
func node(t times) float64     { return t.node }
func workload(t times) float64 { return t.workload }

func values(runs []times, field func(times) float64) []float64 {
	out := make([]float64, len(runs))
	for i, t := range runs {
		out[i] = field(t)
	}
	return out
}

func median(runs []times, field func(times) float64) float64 {
	return figures.Median(values(runs, field))
}

func spread(runs []times, field func(times) float64) string {
	return figures.Range(values(runs, field), "%.2f")
}

func sum(m map[string]int64) int64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return n
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
