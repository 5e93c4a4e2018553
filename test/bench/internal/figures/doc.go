// Package figures is what the benchmarks print with: medians and spread of
// samples, Markdown tables, and on which machine and commit something was measured.
//
// It must not know what is measured.
//
// Map: stats.go (samples), table.go, machine.go.
package figures
