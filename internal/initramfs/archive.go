// Package initramfs writes what the kernel unpacks before there is a disk: cpio archives.
//
// The same calls give the same bytes: owners, times and inode numbers are fixed.
package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Archive writes a cpio archive in the "newc" format that the
// kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes.
type Archive struct {
	w *bufio.Writer
	// offset and inode count what has been written; err is the first failure.
	offset, inode int
	err           error
}

// NewArchive begins an archive. It is complete once Close has returned nil.
func NewArchive(w io.Writer) *Archive { return &Archive{w: bufio.NewWriterSize(w, 1<<20)} }

const (
	cpioDir   = 0o040000
	cpioFile  = 0o100000
	cpioLink  = 0o120000
	cpioAlign = 4
)

// Mkdir adds a directory. Directories come before what is in them.
func (a *Archive) Mkdir(path string, mode fs.FileMode) {
	a.entry(path, cpioDir|uint32(mode.Perm()), nil)
}

// Write adds a file.
func (a *Archive) Write(path string, data []byte, mode fs.FileMode) {
	a.entry(path, cpioFile|uint32(mode.Perm()), data)
}

// Symlink adds a symbolic link.
func (a *Archive) Symlink(path, target string) { a.entry(path, cpioLink|0o777, []byte(target)) }

// Add adds a file of the host, with its mode.
func (a *Archive) Add(path, from string) {
	st, err := os.Stat(from)
	if err != nil {
		a.fail(err)
		return
	}
	data, err := os.ReadFile(from)
	if err != nil {
		a.fail(err)
		return
	}
	a.Write(path, data, st.Mode())
}

// Close ends the archive and returns the first failure.
func (a *Archive) Close() error {
	a.inode = 0
	a.entry("TRAILER!!!", 0, nil)
	if a.err == nil {
		a.err = a.w.Flush()
	}
	return a.err
}

func (a *Archive) entry(path string, mode uint32, data []byte) {
	a.inode++
	name := strings.TrimPrefix(path, "/")
	const owner, group, links, mtime, device, checksum = 0, 0, 1, 0, 0, 0
	a.write([]byte(fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, owner, group, links, mtime, len(data), device, device, device, device, len(name)+1, checksum, name)))
	a.pad()
	a.write(data)
	a.pad()
}

func (a *Archive) pad() { a.write(make([]byte, (cpioAlign-a.offset%cpioAlign)%cpioAlign)) }

func (a *Archive) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(p)
	a.offset += n
	a.err = err
}

func (a *Archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}
