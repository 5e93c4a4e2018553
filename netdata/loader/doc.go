// Package loader puts the dataplane's programs into the kernel and keeps them
// there.
//
// [Load] verifies the programs against the pinned maps; the attach methods then
// replace what an earlier agent left, without a moment in which no program is
// attached: a pinned link is updated in place, a classic filter is replaced under
// its handle. Only where nothing is attached yet is something added.
// Programs and links outlive the agent: its death, restart or upgrade changes
// nothing for a packet.
//
// Packets are caught by tcx links, where the kernel has them (6.6), and by cls_bpf
// filters on a clsact qdisc below; [Dataplane.Backend] says which. Sockets are
// caught by links on a cgroup2 directory.
//
// The package must not know what a pod, a Service or a CNI request is.
//
// Every address family of the node has its own programs, maps and attachments, and leaves the packets of
// the other alone.
//
// load.go: reading and opening; constants.go: what the programs are told; programs.go:
// verification; device.go: attaching to interfaces, with
// tcx.go and filter.go; cgroup.go: attaching to sockets; cleanup.go: removing it all.
package loader
