// Package appliance is what runs first on a machine of bothy's own, from the moment the
// kernel has started.
//
//	firmware ─▶ boot file ─▶ stage 1 ─▶ process 1 ─┬▶ bothy-init machine
//	                                              └▶ bothy agent
//
// [Main] is all of the program bothy-init: which part it plays follows from the name it is
// called by. Stage 1 runs in the initramfs, finds the root file system that the kernel's
// command line names by its hash, and goes on in it. Process 1 feeds the watchdog, loads
// modules, mounts the data partition and keeps two processes: package machine, which
// finds configuration, network and time, and the agent, once it can start.
//
// Promises: nothing of the root file system is used that the root hash does not vouch
// for; what goes wrong before the agent runs ends in a restart of the machine after some
// seconds, never in a machine that hangs; a system on trial that is not found healthy in
// time ends, and the one before it starts; the data partition is made when it is empty, and
// never otherwise. What listens to the network is no part of process 1, because its end is
// the machine's.
//
// It must not know about Git, Kubernetes or the network.
//
// Map: main.go (names); stage1.go, medium.go; init.go (process 1); mounts.go; data.go, ext4.go (the
// data partition); watchdog.go; power.go; log.go; trial.go (a system on
// trial).
package appliance
