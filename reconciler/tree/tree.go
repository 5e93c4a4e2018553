package tree

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// ErrSymlink and ErrSubmodule are why an entry cannot be opened.
var (
	ErrSymlink   = errors.New("is a symbolic link, and links are not followed; put a regular file in its place")
	ErrSubmodule = errors.New("is a submodule, and submodules are not fetched; put its files into this repository")
)

// Objects reads Git objects and promises that their content matches their id.
type Objects interface {
	Object(t mirror.ObjectType, id string) ([]byte, error)
	Tree(id string) ([]mirror.Entry, error)
}

// FS is the files below one tree object. It implements fs.FS, fs.ReadFileFS,
// fs.ReadDirFS and fs.StatFS and may be used by several goroutines.
type FS struct {
	objects Objects
	root    string
	modTime time.Time
	listed  listings
}

// New shows the tree with the given object id. modTime is reported for every
// file.
func New(objects Objects, id string, modTime time.Time) *FS {
	return &FS{objects: objects, root: id, modTime: modTime}
}

// Open opens a file or a directory.
func (f *FS) Open(name string) (fs.File, error) {
	e, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if e.Mode == mirror.ModeDir {
		entries, err := f.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &directory{info: f.info(e, 0), entries: entries}, nil
	}
	data, err := f.read(name, e)
	if err != nil {
		return nil, err
	}
	return &file{info: f.info(e, len(data)), Reader: bytes.NewReader(data)}, nil
}

// ReadFile returns the content of a file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	e, err := f.find("read", name)
	if err != nil {
		return nil, err
	}
	return f.read(name, e)
}

// ReadDir lists a directory in the order of names.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.find("read directory", name)
	if err != nil {
		return nil, err
	}
	if e.Mode != mirror.ModeDir {
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: errors.New("is not a directory")}
	}
	entries, err := f.list(e.ID)
	if err != nil {
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, 0, len(entries))
	for _, entry := range entries {
		out = append(out, f.info(entry, 0))
	}
	return out, nil
}

// Stat describes a file without reading it: the size of files is 0.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return f.info(e, 0), nil
}

// ID returns the object id of a file or directory: two commits in which a path
// has the same id hold the same content there, and a directory's id covers
// everything below it. It is found from directories alone, which are kept, so
// that asking for many paths costs little. The error is fs.ErrNotExist for a
// path that is not there; symbolic links and submodules have ids as well.
func (f *FS) ID(name string) (string, error) {
	e, err := f.find("identify", name)
	if err != nil {
		return "", err
	}
	return e.ID, nil
}

func (f *FS) read(name string, e mirror.Entry) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &fs.PathError{Op: "read", Path: name, Err: err} }
	switch {
	case e.Mode == mirror.ModeSymlink:
		return fail(ErrSymlink)
	case e.Mode == mirror.ModeSubmodule:
		return fail(ErrSubmodule)
	case !e.Regular():
		return fail(errors.New("is a directory"))
	}
	data, err := f.objects.Object(mirror.BlobObject, e.ID)
	if err != nil {
		return fail(err)
	}
	return data, nil
}

// find walks from the root; every element but the last must be a directory.
func (f *FS) find(op, name string) (mirror.Entry, error) {
	fail := func(err error) (mirror.Entry, error) {
		return mirror.Entry{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at := mirror.Entry{Name: ".", Mode: mirror.ModeDir, ID: f.root}
	if name == "." {
		return at, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		switch at.Mode {
		case mirror.ModeSymlink:
			return fail(ErrSymlink)
		case mirror.ModeSubmodule:
			return fail(ErrSubmodule)
		case mirror.ModeDir:
		default:
			return fail(fs.ErrNotExist)
		}
		entries, err := f.list(at.ID)
		if err != nil {
			return fail(err)
		}
		i := slices.IndexFunc(entries, func(e mirror.Entry) bool { return e.Name == element })
		if i < 0 {
			return fail(fs.ErrNotExist)
		}
		at = entries[i]
	}
	return at, nil
}

func (f *FS) info(e mirror.Entry, size int) *info {
	return &info{entry: e, size: int64(size), modTime: f.modTime}
}

// info is both fs.FileInfo and fs.DirEntry.
type info struct {
	entry   mirror.Entry
	size    int64
	modTime time.Time
}

func (i *info) Name() string               { return path.Base(i.entry.Name) }
func (i *info) Size() int64                { return i.size }
func (i *info) ModTime() time.Time         { return i.modTime }
func (i *info) IsDir() bool                { return i.entry.Mode == mirror.ModeDir }
func (i *info) Sys() any                   { return nil }
func (i *info) Type() fs.FileMode          { return i.Mode().Type() }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }

func (i *info) Mode() fs.FileMode {
	switch i.entry.Mode {
	case mirror.ModeDir:
		return fs.ModeDir | 0o555
	case mirror.ModeSymlink:
		return fs.ModeSymlink | 0o444
	case mirror.ModeSubmodule:
		return fs.ModeIrregular | 0o444
	case mirror.ModeExecutable:
		return 0o555
	}
	return 0o444
}

type file struct {
	info *info
	*bytes.Reader
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

type directory struct {
	info    *info
	entries []fs.DirEntry
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *directory) Close() error               { return nil }
func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Name(), Err: errors.New("is a directory")}
}

// ReadDir follows the contract of fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		all := d.entries
		d.entries = nil
		return all, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	part := d.entries[:n]
	d.entries = d.entries[n:]
	return part, nil
}
