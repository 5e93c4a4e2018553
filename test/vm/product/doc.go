// Package product runs the whole product on an ordinary host, which is a virtual
// machine: a kernel of Debian, cgroup version 2, root with every capability, and no
// more in user space than busybox.
//
// BOTHY_VM_KERNELS names the kernels, by default the oldest supported one and the LTS
// after it.
package product
