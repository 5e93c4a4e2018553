package figures

import (
	"fmt"
	"math"
	"slices"
)

// Percentile is the smallest sample that p per cent do not exceed, 0 if there is
// none. The samples need not be sorted.
func Percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(samples))
	return v[max(0, int(math.Ceil(p/100*float64(len(v))))-1)]
}

// Median is the middle sample, or the mean of the two in the middle; 0 if there is none.
func Median(samples []float64) float64 {
	v := slices.Sorted(slices.Values(samples))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Range is the median with the least and the most, as text.
func Range(samples []float64, format string) string {
	return spread(samples, format, 0, 100)
}

// Quartiles is the median with the range of the middle half, as text.
func Quartiles(samples []float64, format string) string {
	return spread(samples, format, 25, 75)
}

func spread(samples []float64, format string, low, high float64) string {
	if len(samples) == 0 {
		return "-"
	}
	return fmt.Sprintf(format+" ("+format+" to "+format+")", Median(samples), Percentile(samples, low), Percentile(samples, high))
}

// Ratio is a/b as text.
func Ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
