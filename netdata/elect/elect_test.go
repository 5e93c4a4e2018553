package elect

import (
	"fmt"
	"slices"
	"testing"
)

func TestFirst(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	counts, moved := map[string]int{}, 0
	for i := range 4000 {
		subject := fmt.Sprintf("192.0.2.%d", i)
		got := First(subject, nodes)
		counts[got]++
		shuffled := slices.Clone(nodes)
		slices.Reverse(shuffled)
		if other := First(subject, shuffled); other != got {
			t.Fatalf("%s: %s or %s, by the order of the candidates", subject, got, other)
		}
		without := First(subject, nodes[:3])
		if got != "d" && without != got {
			t.Fatalf("%s moved from %s to %s when d went", subject, got, without)
		}
		if without != got {
			moved++
		}
	}
	for _, n := range nodes {
		if counts[n] < 800 || counts[n] > 1200 {
			t.Errorf("%s was elected %d times of 4000", n, counts[n])
		}
	}
	if moved != counts["d"] {
		t.Errorf("%d subjects moved, d had %d", moved, counts["d"])
	}
	if got := First("x", nil); got != "" {
		t.Errorf("nobody to elect, got %q", got)
	}
}
