package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/bothy-os/bothy/test/bench/internal/figures"
)

// budget is what the design allows. It compares ours with a reference by the median of
// the ratios of CPU time per operation within a round.
type budget struct {
	what      string
	test      string
	ours      [2]string // side, path
	reference [2]string
	most      float64
}

var budgets = []budget{
	{"pod to pod, under policy, TCP_RR", "rr", [2]string{ours, toPod}, [2]string{routed, toPod}, 0.90},
	{"pod to pod, under policy, TCP_CRR", "crr", [2]string{ours, toPod}, [2]string{routed, toPod}, 0.93},
	{"pod to pod, spliced, TCP_RR", "rr", [2]string{spliced, toPod}, [2]string{loopback, toPod}, 0.60},
	{"pod to Service, TCP_CRR", "crr", [2]string{ours, toService}, [2]string{nftables, toService}, 0.78},
}

// Other budgets.
const (
	effectBudget = 50.0 // milliseconds, p99, of the first new and the last old connection
	scaleBudget  = 1.0  // seconds, for the tables
)

func (r *report) printBudgets(w io.Writer) {
	t := figures.NewTable(w, "budget", "Services", "at most", "measured", "")
	row := func(what, services, most, measured string, met bool) {
		verdict := "met"
		if !met {
			verdict = "missed"
		}
		t.Row(what, services, most, measured, verdict)
	}
	for _, b := range budgets {
		for _, n := range r.options.sizes {
			ratios := r.ratios(key{b.ours[0], b.ours[1], b.test, n}, key{b.reference[0], b.reference[1], b.test, n})
			if len(ratios) > 0 {
				row(b.what+", CPU beside "+b.reference[0], fmt.Sprint(n), fmt.Sprintf("%.2f", b.most),
					figures.Quartiles(ratios, "%.3f"), figures.Median(ratios) <= b.most)
			}
		}
	}
	for _, e := range r.Effects {
		if e.Side == ours {
			worst := max(figures.Percentile(e.First, 99), figures.Percentile(e.Last, 99))
			row("EndpointSlice acknowledged to in force, p99, ms", fmt.Sprint(e.Services), fmt.Sprintf("%.0f", effectBudget),
				fmt.Sprintf("%.1f", worst), worst <= effectBudget)
		}
	}
	if s := r.Scale; s != nil {
		row(fmt.Sprintf("%d endpoints into empty tables, s", s.Backends), fmt.Sprint(s.Services), fmt.Sprintf("%.0f", scaleBudget),
			fmt.Sprintf("%.2f", s.Tables), s.Tables <= scaleBudget)
	}
	t.Flush()
}

// ratios are those of the rounds in which both were measured.
func (r *report) ratios(a, b key) []float64 {
	of, by := r.samples[a], r.samples[b]
	out := make([]float64, min(len(of), len(by)))
	for i := range out {
		out[i] = of[i].CPU / by[i].CPU
	}
	return slices.Clip(out)
}
