package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Tree is a directory on the host that becomes a file system of a machine. Paths in
// it are absolute, as the machine sees them.
type Tree struct {
	dir string
}

// NewTree makes an empty tree in a new directory.
func NewTree(dir string) (*Tree, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	t := &Tree{dir: dir}
	return t, t.Mkdir("/tmp", 0o777|fs.ModeSticky)
}

// Host returns where a path of the tree is on the host.
func (t *Tree) Host(path string) string { return filepath.Join(t.dir, path) }

// Mkdir makes a directory and those above it.
func (t *Tree) Mkdir(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(t.Host(path), 0o755); err != nil {
		return err
	}
	return os.Chmod(t.Host(path), mode)
}

// Write makes a file. One that is there already is an error, because it may be shared
// with the host.
func (t *Tree) Write(path string, data []byte, mode fs.FileMode) error {
	if err := t.parent(path); err != nil {
		return err
	}
	f, err := os.OpenFile(t.Host(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Symlink makes a symbolic link to a path of the machine.
func (t *Tree) Symlink(path, target string) error {
	if err := t.parent(path); err != nil {
		return err
	}
	return os.Symlink(target, t.Host(path))
}

// Add puts a file or directory of the host at a path. What is there already in a
// directory stays.
func (t *Tree) Add(path, from string) error {
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		to := filepath.Join(path, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(t.Host(to), 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return t.Symlink(to, target)
		case d.Type().IsRegular():
			return t.link(to, file)
		}
		return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", file)
	})
}

// link shares the file with the host where that is possible: it is only read.
func (t *Tree) link(path, from string) error {
	if err := t.parent(path); err != nil {
		return err
	}
	err := os.Link(from, t.Host(path))
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(t.Host(path), data, st.Mode().Perm())
}

func (t *Tree) parent(path string) error { return os.MkdirAll(filepath.Dir(t.Host(path)), 0o755) }

// size is how many bytes the files of the tree have, and how many there are.
func (t *Tree) size() (bytes int64, files int, err error) {
	err = filepath.WalkDir(t.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files++
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return err
	})
	return bytes, files, err
}
