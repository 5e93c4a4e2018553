// Package nbd is a disk for virtual machines that has a write cache, and loses it.
//
// It serves a file to QEMU by the protocol of network block devices. What a machine has
// written and not flushed is kept aside; when the power goes, each block of that is lost or
// not by chance, whatever the order it was written in. A disk may do just that.
//
// The protocol is that of doc/proto.md of the NetworkBlockDevice project: the fixed newstyle
// negotiation with NBD_OPT_GO or NBD_OPT_EXPORT_NAME, simple replies, and the commands read,
// write, flush, trim, write zeroes and disconnect.
//
// disk.go: the cache; server.go: the protocol.
package nbd
