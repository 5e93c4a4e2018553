package sources

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// disk is the directory that holds indexes and archives. Losing any of it costs
// fetching it again, so nothing is synced; a file that was not written whole is
// recognised by its digest.
type disk struct{ dir string }

// path of a file of an object. Names of objects contain no underscore, and no
// separator.
func (d disk) path(kind, namespace, name, suffix string) string {
	return filepath.Join(d.dir, kind, namespace+"_"+name+suffix)
}

// write puts content in place of a file.
func (d disk) write(path string, content []byte) error {
	return d.fill(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// fill replaces a file by what fill writes.
func (d disk) fill(path string, fill func(io.Writer) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	if err := fill(temporary); err != nil {
		return errors.Join(err, temporary.Close())
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

// remove deletes the files of an object that match one of the suffix patterns.
func (d disk) remove(kind, namespace, name, pattern string, keep ...string) error {
	found, err := filepath.Glob(d.path(kind, namespace, name, pattern))
	if err != nil {
		return err
	}
	var problems []error
	for _, path := range found {
		if len(keep) > 0 && path == keep[0] {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// sweep removes what earlier processes left half-written.
func (d disk) sweep() error {
	found, err := filepath.Glob(filepath.Join(d.dir, "*", ".new-*"))
	if err != nil {
		return err
	}
	var problems []error
	for _, path := range found {
		problems = append(problems, os.Remove(path))
	}
	return errors.Join(problems...)
}

// digestOf returns the digest of content.
func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// digestOfFile returns the digest and the size of a file.
func digestOfFile(path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	sum := sha256.New()
	if size, err = io.Copy(sum, f); err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), size, nil
}

// onDisk is a file system of one file, whose content is on disk and compared
// with its digest whenever it is opened.
type onDisk struct {
	path   string // where it is
	name   string // what it is called in the file system
	digest string
	at     time.Time
}

// Open implements fs.FS.
func (o onDisk) Open(name string) (fs.File, error) {
	switch name {
	case ".":
		return &directory{of: o}, nil
	case o.name:
		content, err := os.ReadFile(o.path)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: withoutPath(err)}
		}
		if digest := digestOf(content); digest != o.digest {
			err := fmt.Errorf("the cached file is damaged or was replaced: it has digest %s and not %s", digest, o.digest)
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &opened{Reader: bytes.NewReader(content), info: o.info(int64(len(content)))}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ID implements the interface by which builds tell that a file is unchanged.
func (o onDisk) ID(name string) (string, error) {
	if name == "." || name == o.name {
		return o.digest, nil
	}
	return "", &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

func (o onDisk) info(size int64) fileInfo {
	return fileInfo{name: o.name, size: size, mode: 0o444, at: o.at}
}

func withoutPath(err error) error {
	var problem *fs.PathError
	if errors.As(err, &problem) {
		return problem.Err
	}
	return err
}

// opened is the file.
type opened struct {
	*bytes.Reader
	info fileInfo
}

// Stat implements fs.File.
func (f *opened) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close implements fs.File.
func (f *opened) Close() error { return nil }

// directory is the directory that the file is in.
type directory struct {
	of   onDisk
	done bool
}

// Stat implements fs.File.
func (d *directory) Stat() (fs.FileInfo, error) {
	return fileInfo{name: ".", mode: fs.ModeDir | 0o555, at: d.of.at}, nil
}

// Read implements fs.File.
func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: errors.New("is a directory")}
}

// Close implements fs.File.
func (d *directory) Close() error { return nil }

// ReadDir implements fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.done {
		if n > 0 {
			return nil, io.EOF
		}
		return nil, nil
	}
	d.done = true
	info, err := os.Stat(d.of.path)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: ".", Err: withoutPath(err)}
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(d.of.info(info.Size()))}, nil
}

type fileInfo struct {
	name string
	size int64
	mode fs.FileMode
	at   time.Time
}

// Name implements fs.FileInfo.
func (i fileInfo) Name() string { return i.name }

// Size implements fs.FileInfo.
func (i fileInfo) Size() int64 { return i.size }

// Mode implements fs.FileInfo.
func (i fileInfo) Mode() fs.FileMode { return i.mode }

// ModTime implements fs.FileInfo.
func (i fileInfo) ModTime() time.Time { return i.at }

// IsDir implements fs.FileInfo.
func (i fileInfo) IsDir() bool { return i.mode.IsDir() }

// Sys implements fs.FileInfo.
func (i fileInfo) Sys() any { return nil }

// fileName makes a chart's version fit to be part of a file's name.
func fileName(chart, version string) string {
	return strings.NewReplacer("/", "-", string(filepath.Separator), "-").Replace(chart+"-"+version) + ".tgz"
}
