package rootfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// libraryDirs is where the dynamic linker of Debian and its kin looks.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// AddProgram puts a program of the host at a path, with the dynamic linker and the
// libraries it needs, in place of what is there. A name without a slash is looked for
// in PATH.
func (t *Tree) AddProgram(path, from string) error {
	file, err := exec.LookPath(from)
	if err != nil {
		return err
	}
	if err := os.Remove(t.Host(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.addResolved(path, file); err != nil {
		return err
	}
	return t.addNeeds(file)
}

// addResolved adds the file a link points to, unless the tree has it.
func (t *Tree) addResolved(path, from string) error {
	target, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	err = t.link(path, target)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (t *Tree) addNeeds(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s is no program for Linux: %w", file, err)
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz-1) // a zero byte ends it
		if _, err := p.ReadAt(name, 0); err != nil {
			return fmt.Errorf("read the dynamic linker of %s: %w", file, err)
		}
		if err := t.addResolved(string(name), string(name)); err != nil {
			return err
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read the libraries of %s: %w", file, err)
	}
	for _, name := range libraries {
		if err := t.addLibrary(name); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (t *Tree) addLibrary(name string) error {
	for _, dir := range libraryDirs {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if _, err := os.Lstat(t.Host(file)); err == nil {
			return nil
		}
		if err := t.addResolved(file, file); err != nil {
			return err
		}
		return t.addNeeds(file)
	}
	return fmt.Errorf("library %s is in none of %v", name, libraryDirs)
}
