package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// files is content in memory. It does not change. Paths have ids as in a Git
// tree: that of a file is the digest of its content, that of a directory covers
// everything below it.
type files struct{ nodes map[string]*node }

// node is a file or a directory.
type node struct {
	name     string
	data     []byte
	dir      bool
	children []*node // of a directory, by name
	id       string
}

// newFiles makes directories and ids of regular files, named by their paths.
func newFiles(content map[string][]byte) (*files, error) {
	f := &files{nodes: map[string]*node{".": {name: ".", dir: true}}}
	for name, data := range content {
		sum := sha256.Sum256(data)
		n, err := f.make(name)
		if err != nil {
			return nil, err
		}
		if n.dir {
			return nil, &fs.PathError{Op: "unpack", Path: name, Err: errors.New("is a file and a directory")}
		}
		n.data, n.id = data, hex.EncodeToString(sum[:])
	}
	f.nodes["."].seal()
	return f, nil
}

// make returns the node of a path with all directories above it.
func (f *files) make(name string) (*node, error) {
	if n := f.nodes[name]; n != nil {
		return n, nil
	}
	parent := f.nodes[path.Dir(name)]
	if parent == nil {
		var err error
		if parent, err = f.make(path.Dir(name)); err != nil {
			return nil, err
		}
	}
	if parent.id != "" {
		return nil, &fs.PathError{Op: "unpack", Path: name, Err: errors.New("is below a file")}
	}
	parent.dir = true
	n := &node{name: path.Base(name)}
	parent.children = append(parent.children, n)
	f.nodes[name] = n
	return n, nil
}

// seal sorts directories and gives them ids.
func (n *node) seal() {
	if !n.dir {
		return
	}
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	sum := sha256.New()
	for _, child := range n.children {
		child.seal()
		kind := "file"
		if child.dir {
			kind = "directory"
		}
		_, _ = io.WriteString(sum, kind+" "+child.id+" "+child.name+"\x00")
	}
	n.id = hex.EncodeToString(sum.Sum(nil))
}

func (f *files) find(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if n := f.nodes[name]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// ID returns the id of a path.
func (f *files) ID(name string) (string, error) {
	n, err := f.find("identify", name)
	if err != nil {
		return "", err
	}
	return n.id, nil
}

// Open implements fs.FS.
func (f *files) Open(name string) (fs.File, error) {
	n, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return &openDir{node: n, left: n.entries()}, nil
	}
	return &openFile{node: n, Reader: bytes.NewReader(n.data)}, nil
}

// ReadFile implements fs.ReadFileFS.
func (f *files) ReadFile(name string) ([]byte, error) {
	n, err := f.find("read", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return bytes.Clone(n.data), nil
}

// ReadDir implements fs.ReadDirFS.
func (f *files) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("read directory", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: errors.New("is not a directory")}
	}
	return n.entries(), nil
}

// Stat implements fs.StatFS.
func (f *files) Stat(name string) (fs.FileInfo, error) {
	n, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *node) entries() []fs.DirEntry {
	out := make([]fs.DirEntry, 0, len(n.children))
	for _, child := range n.children {
		out = append(out, child)
	}
	return out
}

// A node is both fs.FileInfo and fs.DirEntry.

// Name is the last element of the path.
func (n *node) Name() string { return n.name }

// Size is the length of a file in bytes.
func (n *node) Size() int64 { return int64(len(n.data)) }

// ModTime is zero: what is in an archive does not count.
func (n *node) ModTime() time.Time { return time.Time{} }

// IsDir reports whether it is a directory.
func (n *node) IsDir() bool { return n.dir }

// Sys is nil.
func (n *node) Sys() any { return nil }

// Type is that of Mode.
func (n *node) Type() fs.FileMode { return n.Mode().Type() }

// Info is the node itself.
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

// Mode says that nothing can be written.
func (n *node) Mode() fs.FileMode {
	if n.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

type openFile struct {
	*bytes.Reader
	node *node
}

func (o *openFile) Stat() (fs.FileInfo, error) { return o.node, nil }
func (o *openFile) Close() error               { return nil }

type openDir struct {
	node *node
	left []fs.DirEntry
}

func (o *openDir) Stat() (fs.FileInfo, error) { return o.node, nil }
func (o *openDir) Close() error               { return nil }
func (o *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: o.node.name, Err: errors.New("is a directory")}
}

// ReadDir follows the contract of fs.ReadDirFile.
func (o *openDir) ReadDir(count int) ([]fs.DirEntry, error) {
	if count <= 0 {
		all := o.left
		o.left = nil
		return all, nil
	}
	if len(o.left) == 0 {
		return nil, io.EOF
	}
	count = min(count, len(o.left))
	part := o.left[:count]
	o.left = o.left[count:]
	return part, nil
}
