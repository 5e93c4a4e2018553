package figures

import "testing"

func TestStats(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3, 100}
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"median of six", Median(samples), 3.5},
		{"median of five", Median(samples[:5]), 3},
		{"median of none", Median(nil), 0},
		{"p0", Percentile(samples, 0), 1},
		{"p50", Percentile(samples, 50), 3},
		{"p99", Percentile(samples, 99), 100},
		{"p50 of none", Percentile(nil, 50), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	if samples[0] != 5 {
		t.Error("the caller's samples were sorted")
	}
	if got := Quartiles(samples, "%.0f"); got != "4 (2 to 5)" {
		t.Errorf("quartiles are %q", got)
	}
}
