// Package install writes the appliance to a disk.
//
// A [Source] is what is written: the boot file and the root file system of the running
// system, of the medium that it was started from, or of files that the image builder made.
// [Choose] finds the disk that is meant, and [Disk] writes to it.
//
// Promises: a disk that holds anything is written to only when that was asked for, and the
// disk that the machine runs from never; the partition table is the last thing that is
// written, so that a disk on which the power went starts nothing and pretends nothing; what
// was written was read again and compared before.
//
// It must not know where boot configuration comes from.
//
// Map: layout.go (partitions); choose.go; source.go; disk.go (the order of things); data.go
// (the data partition).
package install
