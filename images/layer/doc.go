// Package layer reads the layers of images and refuses those that are made to
// do harm.
//
// [Guard] passes an archive through as it is and looks at every entry on the
// way: how much it grew by decompression, how many files it has, and whether a
// name leads out of the image. It holds a few kilobytes of it at any time. What
// it refuses ends with a [RefusedError] before the entry gets to whoever reads.
//
// The package must not know containerd, or where layers come from.
package layer
