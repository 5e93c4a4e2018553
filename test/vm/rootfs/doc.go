// Package rootfs makes what a virtual machine boots from, without root and without
// mounting anything: directory trees with programs and the libraries they need
// ([Tree]), and ext4 disks with the content of a tree ([Tree.WriteDisk]).
//
// It must not know about kernels or machines.
package rootfs
