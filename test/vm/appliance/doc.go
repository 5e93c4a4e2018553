// Package appliance boots the operating system image itself: a virtual machine with
// nothing but firmware, the disk that `make image` wrote, and a seed volume.
//
// The tests speak only what an operator of a machine has: Git, the Kubernetes API, the
// addresses of workloads, and what is on the console. They run in a network namespace of
// their own, in which the Git server is and out of which nothing leads.
//
// Tests of updates build images of their own that fail in some way, with the program faulty in the
// place of one of bothy's; BOTHY_VM_ALL=1 runs those that take long, BOTHY_POWER_CUTS says how often
// the power fails. Where it does, the disk is one of package nbd, which loses what was not flushed.
//
// BOTHY_IMAGE names another image than build/os/bothy-vm, by its path without an ending.
//
// How long something may take follows from how long the machine took until it showed its
// first picture: under emulation everything is some fifteen times slower, on a busy host
// more.
package appliance
