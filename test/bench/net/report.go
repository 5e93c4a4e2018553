package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/figures"
	"github.com/bothy-os/bothy/test/cluster"
)

// report collects measurements and prints them as Markdown.
type report struct {
	options options
	samples map[key][]sample

	// Machine and At say where and when.
	Machine, At, Commit string
	Packets             []packetFigures
	Effects             []*effectFigures
	Memory              []memoryFigures
	Scale               *scaleFigures `json:",omitempty"`
}

// packetFigures are the samples of one cell, in the order of the rounds.
type packetFigures struct {
	key
	Samples []sample
}

// effectFigures are milliseconds from the API server's answer to the first connection to
// the new server and to the last to the old one.
type effectFigures struct {
	Side        string
	Services    int
	First, Last []float64
	// Refused counts connections that nobody answered.
	Refused int
}

// memoryFigures are MB by side, and our tables.
type memoryFigures struct {
	Services, Backends int
	RSS, PSS           map[string]float64
	Tables             map[string]cluster.Table
}

// scaleFigures are seconds: to write the tables, and from `bothy up` to there.
type scaleFigures struct {
	Services, Backends int
	Tables, Start      float64
}

func newReport(o options) *report {
	return &report{
		options: o, samples: map[key][]sample{},
		Machine: figures.Machine(), At: time.Now().UTC().Format("2006-01-02 15:04 MST"), Commit: figures.Commit(),
	}
}

func (r *report) add(k key, s sample) { r.samples[k] = append(r.samples[k], s) }

func (r *report) effect(side string, n int, first, last float64, refused int) {
	i := slices.IndexFunc(r.Effects, func(e *effectFigures) bool { return e.Side == side && e.Services == n })
	if i < 0 {
		i = len(r.Effects)
		r.Effects = append(r.Effects, &effectFigures{Side: side, Services: n})
	}
	e := r.Effects[i]
	e.First, e.Last, e.Refused = append(e.First, first), append(e.Last, last), e.Refused+refused
}

func (r *report) save(path string) error {
	r.Packets = nil
	for k, s := range r.samples {
		r.Packets = append(r.Packets, packetFigures{k, s})
	}
	slices.SortFunc(r.Packets, func(a, b packetFigures) int { return strings.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key)) })
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "Measured %s at commit %s on %s, load %s at the end.\n", r.At, r.Commit, r.Machine, figures.Load())
	fmt.Fprint(w, "\nThe budgets of the design. Ratios are medians (middle half) of the ratios within a round.\n\n")
	r.printBudgets(w)
	for _, p := range r.options.paths {
		r.printPath(w, p)
	}
	if r.options.far() {
		way := "go as they are"
		if r.options.encapsulate {
			way = "are wrapped in vxlan, on all sides"
		}
		fmt.Fprintf(w, "\nBetween nodes, packets %s.\n", way)
	}
	if len(r.Effects) > 0 {
		fmt.Fprint(w, "\nFrom the API server's answer to an update of an EndpointSlice, milliseconds, to the first connection to the new server and\n"+
			"to the begin of the last connection to the old one; a client connects every millisecond.\n\n")
		r.printEffects(w)
	}
	if s := r.Scale; s != nil {
		fmt.Fprintf(w, "\nA node that starts with %d Services and %d endpoints: the tables are written in %.2f s, %.1f s after the exec of\n"+
			"`bothy up`, API server and caches included.\n", s.Services, s.Backends, s.Tables, s.Start)
	}
	if len(r.Memory) > 0 {
		fmt.Fprint(w, "\nMemory, MB: the processes that know the Services (bothy's is the whole agent), and bothy's tables in the kernel.\n\n")
		r.printMemory(w)
	}
}

var pathTitles = map[string]string{
	toPod:      "From a pod to a pod's address",
	toService:  "From a pod to a ClusterIP",
	fromHost:   "From a process of the node to a ClusterIP (routed: to the pod's address)",
	toNodePort: "From outside to a node port",
	toPod6:     "From a pod to a pod's IPv6 address",
	toService6: "From a pod to an IPv6 ClusterIP",

	toNode:        "From a pod to the address of a pod of another node",
	toNodeService: "From a pod to a ClusterIP whose endpoint is on another node",
}

var testTitles = map[string]string{"rr": "TCP_RR", "crr": "TCP_CRR", "udp": "UDP_RR", "stream": "TCP_STREAM, 128 KiB"}

// printPath has two tables for each path: what an operation costs by number of Services, and
// what that is beside ours.
func (r *report) printPath(w io.Writer, path string) {
	if !slices.ContainsFunc(slices.Collect(maps.Keys(r.samples)), func(k key) bool { return k.Path == path }) {
		return
	}
	r.printCells(w, fmt.Sprintf("%s. CPU time of both ends per operation, µs: median (middle half) of %d rounds.", pathTitles[path], r.options.rounds), path, func(k key) string {
		return figures.Quartiles(of(r.samples[k], func(s sample) float64 { return s.CPU }), "%.1f")
	})
	r.printCells(w, "The same as a ratio: bothy's CPU time to that of the side, within a round.", path, func(k key) string {
		if k.Side == ours {
			return ""
		}
		return figures.Quartiles(r.ratios(key{ours, path, k.Test, k.Services}, k), "%.2f")
	})
	r.printCells(w, "Operations per second, median (middle half).", path, func(k key) string {
		return figures.Quartiles(of(r.samples[k], func(s sample) float64 { return s.Rate }), "%.0f")
	})
}

// printCells has a row for each test and side and a column for each number of Services. Rows
// without any content are left out, and a table of no rows; see bench.due for what is not measured with each.
func (r *report) printCells(w io.Writer, title, path string, cell func(key) string) {
	head := []string{"", "side"}
	for _, n := range r.options.sizes {
		head = append(head, fmt.Sprintf("%d Services", n))
	}
	var rows [][]string
	for _, test := range r.options.tests {
		for _, side := range r.options.sides {
			row, empty := []string{testTitles[test], side}, true
			for _, n := range r.options.sizes {
				text := ""
				if k := (key{side, path, test, n}); len(r.samples[k]) > 0 {
					text = cell(k)
				}
				row, empty = append(row, text), empty && text == ""
			}
			if !empty {
				rows = append(rows, row)
			}
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n\n", title)
	t := figures.NewTable(w, head...)
	for _, row := range rows {
		t.Row(row...)
	}
	t.Flush()
}

func of(samples []sample, field func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = field(s)
	}
	return out
}

func (r *report) printEffects(w io.Writer) {
	t := figures.NewTable(w, "Services", "side", "first new, p50", "p99", "last old, p50", "p99", "not answered", "updates")
	p := func(v []float64, p float64) string { return fmt.Sprintf("%.1f", figures.Percentile(v, p)) }
	for _, e := range r.Effects {
		t.Row(fmt.Sprint(e.Services), e.Side, p(e.First, 50), p(e.First, 99), p(e.Last, 50), p(e.Last, 99), fmt.Sprint(e.Refused), fmt.Sprint(len(e.First)))
	}
	t.Flush()
}

func (r *report) printMemory(w io.Writer) {
	t := figures.NewTable(w, "Services", "endpoints", "side", "RSS", "PSS", "tables")
	for _, m := range r.Memory {
		for _, side := range r.options.sides {
			if m.RSS[side] == 0 {
				continue
			}
			tables := ""
			if side == ours {
				tables = m.tables()
			}
			t.Row(fmt.Sprint(m.Services), fmt.Sprint(m.Backends), side, fmt.Sprintf("%.1f", m.RSS[side]), fmt.Sprintf("%.1f", m.PSS[side]), tables)
		}
	}
	t.Flush()
}

// tables are their sum and the largest.
func (m *memoryFigures) tables() string {
	var sum uint64
	for _, t := range m.Tables {
		sum += t.Bytes
	}
	names := slices.SortedFunc(maps.Keys(m.Tables), func(a, b string) int { return int(m.Tables[b].Bytes) - int(m.Tables[a].Bytes) })
	var largest []string
	for _, name := range names[:min(4, len(names))] {
		largest = append(largest, fmt.Sprintf("%s %.1f", name, float64(m.Tables[name].Bytes)/1e6))
	}
	return fmt.Sprintf("%.1f (%s)", float64(sum)/1e6, strings.Join(largest, ", "))
}

// line is below what a person has written.
const line = "\n---\n"

// writeTo replaces what stands below the line in the document, and writes the measurements
// beside it.
func (r *report) writeTo(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, _, ok := bytes.Cut(old, []byte(line))
	if !ok {
		return fmt.Errorf("%s has no line --- below which the report goes", path)
	}
	var b bytes.Buffer
	b.Write(head)
	b.WriteString(line + "\n")
	r.print(&b)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return err
	}
	return r.save(strings.TrimSuffix(path, ".md") + ".json")
}
