// Package tree shows the files of one commit as a read-only [io/fs.FS].
//
// Nothing is checked out: directories and files are read from Git objects when
// they are asked for, so there is no work tree to go stale, to fill the disk or
// to be tampered with, and a path can never leave the repository. Symbolic
// links and submodules are listed but never followed; opening one is an error
// that says so.
//
// The package must not know what the files mean.
package tree
