// Package bpf holds the dataplane's kernel programs: their C sources under
// src, the objects built from them, and the Go types of their maps.
//
// Every program is one source, compiled once for IPv4 and once for IPv6; the
// generated files are committed, so that building bothy needs no compiler
// for eBPF. Run `go generate` here after a change (clang-19, llvm-strip-19 and
// the libbpf headers).
//
// The package promises that the generated types have the layout the programs
// use. It must not know how maps are pinned or programs attached: that is
// netdata/maps and netdata/loader.
//
// Where to read: src/dataplane.bpf.c lists the programs; from_pod.h, to_pod.h,
// from_ext.h, to_ext.h and sock.h hold one each. balance.h is the service path
// they share, nat.h and conntrack.h the state, refuse.h and icmp.h the answers.
// tables.h is the interface to user space. src/splice.bpf.c is an object of its own, for those who ask for
// it: splice.h tells what it does.
package bpf
