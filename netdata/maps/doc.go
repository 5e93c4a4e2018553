// Package maps gives the dataplane's eBPF maps Go types: addresses instead of
// byte orders, rows instead of structs with padding.
//
// [Open] finds the pinned maps or creates them, so that they outlive the
// agent; the version of a map's layout is part of the name of its pin, and a
// new layout starts with an empty map beside the old one. Pins of layouts that
// are no longer in use are removed by [Tables.Commit], once programs that use
// the new ones are attached.
//
// The package promises that what it writes has the layout of
// netdata/bpf/src/tables.h. It must not know where rows come from.
//
// tables.go opens and pins; endpoints.go, services.go, hostports.go, sources.go,
// addresses.go, flows.go and drops.go hold one table or one family of tables each.
package maps
