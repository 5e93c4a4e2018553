package git

import (
	"io"
	"io/fs"
	"time"
)

// directory describes a directory that no repository has.
type directory string

// The methods of fs.DirEntry and fs.FileInfo.
func (d directory) Name() string               { return string(d) }
func (d directory) IsDir() bool                { return true }
func (d directory) Type() fs.FileMode          { return fs.ModeDir }
func (d directory) Info() (fs.FileInfo, error) { return d, nil }
func (d directory) Size() int64                { return 0 }
func (d directory) Mode() fs.FileMode          { return fs.ModeDir | 0o755 }
func (d directory) ModTime() time.Time         { return time.Time{} }
func (d directory) Sys() any                   { return nil }

// openDir is a directory being read.
type openDir struct {
	info    fs.FileInfo
	entries []fs.DirEntry
}

// The methods of fs.ReadDirFile.
func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Name(), Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.entries
		d.entries = nil
		return out, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	out := d.entries[:n]
	d.entries = d.entries[n:]
	return out, nil
}
