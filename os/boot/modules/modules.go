// Package modules loads modules of the kernel: those that hardware asks for when the
// machine starts or something is plugged in, and those that the kernel asks for through
// its helper, modprobe.
//
// It reads the lists modules.dep, modules.alias and modules.builtin that the image builder
// wrote, and keeps nothing in memory between calls. What the kernel may load is decided by
// what is in the image and by the kernel, which checks signatures.
//
// modules.go: names and dependencies; hardware.go: devices and what they ask for.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Set is the modules of a kernel.
type Set struct {
	dir string
	// load puts a file into the kernel.
	load func(file string) error
}

// Open returns the modules of the running kernel.
func Open() (*Set, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	return &Set{dir: filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])), load: load}, nil
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// ErrUnknown says that there is no module of a name, or for an alias.
var ErrUnknown = errors.New("no such module")

// Load loads modules by name or alias, with all they depend on. What is built into the
// kernel or loaded already is no error.
func (s *Set) Load(names ...string) error {
	var errs []error
	wanted, err := s.resolve(names)
	if err != nil {
		errs = append(errs, err)
	}
	files, err := s.files(wanted)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, file := range files {
		if err := s.load(filepath.Join(s.dir, file)); err != nil {
			// A driver for hardware that is not there says ENODEV.
			errs = append(errs, fmt.Errorf("load %s: %w", file, err))
		}
	}
	return errors.Join(errs...)
}

// resolve turns aliases into names of modules. Those that are built in are left out.
func (s *Set) resolve(names []string) (map[string]bool, error) {
	wanted, open := map[string]bool{}, map[string]bool{}
	for _, n := range names {
		open[n] = true
	}
	found := map[string]bool{}
	err := s.lines("modules.alias", func(line string) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		for n := range open {
			if matches(f[1], n) {
				wanted[f[2]], found[n] = true, true
			}
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	known := map[string]bool{}
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		err := s.lines(list, func(line string) {
			file, _, _ := strings.Cut(line, ":")
			known[moduleName(file)] = true
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var unknown []string
	for n := range open {
		plain := strings.ReplaceAll(n, "-", "_")
		switch {
		case known[plain]:
			wanted[plain] = true
		case !found[n]:
			unknown = append(unknown, n)
		}
	}
	if len(unknown) > 0 {
		return wanted, fmt.Errorf("%w: %s", ErrUnknown, strings.Join(unknown, ", "))
	}
	return wanted, nil
}

// matches compares an alias of a module, in which *, ? and [] stand for others, with what
// is asked for. Most differ before the first of these.
func matches(pattern, name string) bool {
	plain := pattern
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		plain = pattern[:i]
	}
	return strings.HasPrefix(name, plain) && match(pattern, name)
}

func match(pattern, name string) bool {
	// No path is compared, so that a slash is a character like others.
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "|"), strings.ReplaceAll(name, "/", "|"))
	return err == nil && ok
}

// files lists what to load, in order: dependencies before what needs them.
func (s *Set) files(wanted map[string]bool) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	err := s.lines("modules.dep", func(line string) {
		file, deps, _ := strings.Cut(line, ":")
		if !wanted[moduleName(file)] {
			return
		}
		all := append([]string{file}, strings.Fields(deps)...)
		for i := len(all) - 1; i >= 0; i-- {
			if !seen[all[i]] {
				seen[all[i]] = true
				out = append(out, all[i])
			}
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return out, err
}

func (s *Set) lines(name string, visit func(string)) error {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text := lines.Text(); text != "" && text[0] != '#' {
			visit(text)
		}
	}
	return lines.Err()
}

// moduleName is how the kernel calls a module: the names of files and of modules differ
// in dashes.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// Modprobe is the kernel's helper. Arguments are those of the program of this name, of
// which the kernel uses -q and --; without a module it does nothing.
func Modprobe(args []string) error {
	var names []string
	quiet := false
	for _, a := range args {
		switch {
		case a == "-q" || a == "--quiet":
			quiet = true
		case strings.HasPrefix(a, "-"):
		case strings.Contains(a, "=") && len(names) > 0: // parameters; modules keep their defaults
		default:
			names = append(names, a)
		}
	}
	if len(names) == 0 {
		return nil
	}
	s, err := Open()
	if err == nil {
		err = s.Load(names...)
	}
	if quiet && errors.Is(err, ErrUnknown) {
		return errQuiet{err}
	}
	return err
}

// errQuiet is an error that is not to be shown.
type errQuiet struct{ error }

func (errQuiet) Quiet() bool     { return true }
func (e errQuiet) Unwrap() error { return e.error }
