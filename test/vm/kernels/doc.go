// Package kernels runs the tests that depend on the kernel inside virtual machines,
// on every kernel that is supported.
//
// BOTHY_VM_KERNELS names the kernels, by default the oldest supported one and the one
// the appliance ships.
package kernels
