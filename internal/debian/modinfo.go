package debian

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// module is what a kernel module says of itself.
type module struct {
	// path is relative to the directory of the kernel's modules.
	path    string
	depends []string
	aliases []string
}

// moduleName is how the kernel calls a module: the names of files and of modules
// differ in dashes.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

func readModule(dir, path string) (module, error) {
	m := module{path: path}
	f, err := elf.Open(filepath.Join(dir, path))
	if err != nil {
		return m, err
	}
	defer func() { _ = f.Close() }() // only read
	section := f.Section(".modinfo")
	if section == nil {
		return m, fmt.Errorf("%s has no section .modinfo", path)
	}
	data, err := section.Data()
	if err != nil {
		return m, err
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			m.depends = append(m.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			m.depends = append(m.depends, softPre(value)...)
		case "alias":
			m.aliases = append(m.aliases, value)
		}
	}
	return m, nil
}

// softPre are the modules that a softdep line wants loaded before.
func softPre(line string) []string {
	_, pre, found := strings.Cut(line, "pre:")
	if !found {
		return nil
	}
	pre, _, _ = strings.Cut(pre, "post:")
	return strings.Fields(pre)
}

func readModules(dir string) (map[string]module, error) {
	all := map[string]module{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".ko") {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[moduleName(rel)], err = readModule(dir, rel)
		return err
	})
	return all, err
}

// closure lists modules with all they depend on, in the order of loading. A name may be
// an alias, as that of an algorithm which several modules have. One that is neither is
// built in, or asked for in vain: only the kernel knows.
func closure(all map[string]module, names ...string) []module {
	var out []module
	seen := map[string]bool{}
	var add func(string)
	add = func(wanted string) {
		name := strings.ReplaceAll(wanted, "-", "_")
		m, ok := all[name]
		if !ok {
			for _, n := range withAlias(all, wanted) {
				add(n)
			}
			return
		}
		if seen[name] {
			return
		}
		seen[name] = true
		for _, d := range m.depends {
			add(d)
		}
		out = append(out, m)
	}
	for _, n := range names {
		add(n)
	}
	return out
}

// withAlias lists the modules that have an alias.
func withAlias(all map[string]module, alias string) []string {
	var out []string
	for name, m := range all {
		if slices.Contains(m.aliases, alias) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// ModuleClosure lists the files of modules with all they depend on, in the order
// of loading. Names that are built into the kernel are left out.
func (k *Kernel) ModuleClosure(names ...string) ([]string, error) {
	all, err := readModules(k.Modules)
	if err != nil {
		return nil, fmt.Errorf("read modules of %s: %w", k.Release, err)
	}
	var out []string
	for _, m := range closure(all, names...) {
		out = append(out, filepath.Join(k.Modules, m.path))
	}
	return out, nil
}

// WriteModuleLists writes modules.dep and modules.alias for the modules in a directory, as
// depmod would after an installation.
func WriteModuleLists(dir string) error {
	all, err := readModules(dir)
	if err != nil {
		return err
	}
	var deps, aliases []string
	for name, m := range all {
		line := m.path + ":"
		needs := closure(all, name)
		// Nearest first, without itself.
		for _, d := range slices.Backward(needs[:len(needs)-1]) {
			line += " " + d.path
		}
		deps = append(deps, line)
		for _, a := range m.aliases {
			aliases = append(aliases, "alias "+a+" "+name)
		}
	}
	for file, lines := range map[string][]string{"modules.dep": deps, "modules.alias": aliases} {
		slices.Sort(lines)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
