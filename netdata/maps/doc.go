// Package maps gives the dataplane's eBPF maps Go types: addresses instead of
// byte orders, rows instead of structs with padding.
//
// [Open] finds the pinned maps or creates them, so that they outlive the
// agent; the version of a map's layout is part of the name of its pin, and a
// new layout starts with an empty map beside the old one. Pins of layouts that
// are no longer in use are removed by [Tables.Commit], once programs that use
// the new ones are attached.
//
// A node has one set of maps per address family, and one map where no address is in the
// rows. A method that is given an address finds the family by it; one that reads a
// table reads it for both.
//
// The package promises that what it writes has the layout of
// netdata/bpf/src/tables.h. It must not know where rows come from.
//
// tables.go opens and pins; family.go tells the families apart; rows.go and convert.go are the
// layout; endpoints.go, services.go, hostports.go, sources.go, addresses.go, flows.go and drops.go
// hold the tables.
package maps
