// Package vm boots virtual machines for tests: real kernels of Debian, a root
// file system made for the test, and a way to run commands in it.
//
//	lab := vm.Open(t)
//	tree := lab.Tree(t)                      // busybox and what an ordinary host has
//	tree.AddProgram("/usr/bin/thing", "thing")
//	m := lab.Boot(t, vm.Spec{Kernel: "6.1", Root: tree})
//	out := m.Output(t, "thing", "--verbose")
//	m.Kill(t)                                // a power cut
//
// A [Machine] goes with the test that booted it. When the test fails, its console is
// kept in build/vm/failed. Under emulation a machine is slow: [Machine.Scale] says how
// long to wait for something that takes a given time on the host.
//
// A machine of one's own making, such as an image of the product with its own process
// 1, is booted by package qemu alone.
//
// The suites are in sub-packages:
//
//	kernels   tests of the source tree, run inside: the dataplane on every kernel that
//	          is supported, cgroup version 2, project quotas
//	product   `bothy up` and `bothy down` on an ordinary host
//
// Parts: debian (kernels), rootfs (disks), guest (process 1 and the command channel),
// qemu (hardware), gotest (Go tests inside machines). This package joins them:
// lab.go (what a host offers), boot.go, machine.go (commands).
//
// Like everything under test it imports none of the product's packages.
package vm
