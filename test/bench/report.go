package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"
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
	pss, rss  map[string]int64 // KiB by process name
	cpu       float64          // per cent of one core
	perHour   float64          // bytes written
	anonymous int64            // KiB
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
		f.pss[now.name] += now.pss
		f.rss[now.name] += now.rss
		f.anonymous += now.anon
		was := before.processes[pid] // zero for one that is new
		cpu += now.cpu - was.cpu
		written += now.written - was.written
	}
	f.cpu = 100 * cpu.Seconds() / f.window.Seconds()
	f.perHour = float64(written) / f.window.Hours()
	r.idles[system] = f
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "Measured %s at commit %s on %s, %d cores, %s memory, Linux %s, %s, load %s before the end.\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), commit(), cpuModel(), runtime.NumCPU(), memory(), kernel(), runtime.Version(), load())
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
	t := newTable(w, "", "API ready", "node Ready", "workload answers")
	for _, kind := range []string{"cold", "warm"} {
		for _, system := range r.order {
			runs := r.starts[system][kind]
			t.row(system+", "+kind, spread(runs, api), spread(runs, node), spread(runs, workload))
		}
		if len(r.order) == 2 {
			a, b := r.starts[r.order[0]][kind], r.starts[r.order[1]][kind]
			t.row("ratio, "+kind, ratio(median(a, api), median(b, api)), ratio(median(a, node), median(b, node)), ratio(median(a, workload), median(b, workload)))
		}
	}
	t.flush()
}

func (r *report) printIdle(w io.Writer) {
	t := newTable(w, "", "PSS, MB", "RSS, MB", "anonymous, MB", "CPU, % of a core", "written, MB/h")
	values := func(f idleFigures) []float64 {
		return []float64{megabytes(sum(f.pss)), megabytes(sum(f.rss)), megabytes(f.anonymous), f.cpu, f.perHour / 1e6}
	}
	for _, system := range r.order {
		cells := []string{system}
		for _, v := range values(r.idles[system]) {
			cells = append(cells, fmt.Sprintf("%.1f", v))
		}
		t.row(cells...)
	}
	if len(r.order) == 2 {
		a, b := values(r.idles[r.order[0]]), values(r.idles[r.order[1]])
		cells := []string{"ratio"}
		for i := range a {
			cells = append(cells, ratio(a[i], b[i]))
		}
		t.row(cells...)
	}
	t.flush()
}

func (r *report) printProcesses(w io.Writer) {
	t := newTable(w, "", "process", "PSS", "RSS")
	for _, system := range r.order {
		f := r.idles[system]
		names := make([]string, 0, len(f.pss))
		for name := range f.pss {
			names = append(names, name)
		}
		sort.Slice(names, func(i, j int) bool { return f.pss[names[i]] > f.pss[names[j]] })
		for _, name := range names {
			t.row(system, name, fmt.Sprintf("%.1f", float64(f.pss[name])/1024), fmt.Sprintf("%.1f", float64(f.rss[name])/1024))
		}
	}
	t.flush()
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

func sorted(runs []times, field func(times) float64) []float64 {
	out := make([]float64, len(runs))
	for i, t := range runs {
		out[i] = field(t)
	}
	slices.Sort(out)
	return out
}

func median(runs []times, field func(times) float64) float64 {
	v := sorted(runs, field)
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func spread(runs []times, field func(times) float64) string {
	v := sorted(runs, field)
	if len(v) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(runs, field), v[0], v[len(v)-1])
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func sum(m map[string]int64) int64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return n
}

func megabytes(kib int64) float64 { return float64(kib) * 1024 / 1e6 }

// table writes an aligned Markdown table.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, head ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 0, ' ', 0)}
	t.row(head...)
	t.row(slices.Repeat([]string{"---"}, len(head))...)
	return t
}

func (t *table) row(cells ...string) {
	fmt.Fprintf(t.w, "| %s |\n", strings.Join(cells, "\t | "))
}

func (t *table) flush() { _ = t.w.Flush() } // to memory or a terminal

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func firstField(path, key, separator string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func cpuModel() string { return firstField("/proc/cpuinfo", "model name", ":") }

func memory() string {
	kib, err := keyValues("/proc/meminfo")
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.0f GiB", float64(kib["MemTotal"])/(1<<20))
}

func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}

func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
