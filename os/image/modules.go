package image

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/internal/debian"
)

//go:embed flavours.yaml
var flavoursYAML []byte

// everywhere are the modules of every flavour.
const everywhere = "all"

// selection is flavours.yaml.
type selection struct {
	Early   map[string][]string `json:"early"`
	Modules map[string][]string `json:"modules"`
}

// selectModules returns the names of modules for the initramfs and for the root file
// system of a flavour.
func selectModules(flavour string) (early, modules []string, err error) {
	var s selection
	if err := yaml.UnmarshalStrict(flavoursYAML, &s); err != nil {
		return nil, nil, fmt.Errorf("flavours.yaml: %w", err)
	}
	early = slices.Concat(s.Early[everywhere], s.Early[flavour])
	return early, slices.Concat(early, s.Modules[everywhere], s.Modules[flavour]), nil
}

// copyModules puts modules of a kernel, and what they depend on, into a directory with
// the lists by which they are found. It returns how many there are.
func copyModules(kernel *debian.Kernel, names []string, dir string) (int, error) {
	names, err := expand(kernel.Modules, names)
	if err != nil {
		return 0, err
	}
	files, err := kernel.ModuleClosure(names...)
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		rel, err := filepath.Rel(kernel.Modules, file)
		if err != nil {
			return 0, err
		}
		if err := copyFile(file, filepath.Join(dir, rel), 0o644); err != nil {
			return 0, err
		}
	}
	// What is built in is listed too: asking for it is no mistake.
	for _, list := range []string{"modules.builtin", "modules.builtin.modinfo"} {
		err := copyFile(filepath.Join(kernel.Modules, list), filepath.Join(dir, list), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	if err := debian.WriteModuleLists(dir); err != nil {
		return 0, fmt.Errorf("list the modules: %w", err)
	}
	return len(files), nil
}

// expand replaces directories by the modules in them.
func expand(modules string, names []string) ([]string, error) {
	out := map[string]bool{}
	for _, name := range names {
		if !strings.HasSuffix(name, "/") {
			out[name] = true
			continue
		}
		err := filepath.WalkDir(filepath.Join(modules, name), func(path string, _ fs.DirEntry, err error) error {
			if base, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
				out[base] = true
			}
			return err
		})
		// Not every flavour of the kernel has every directory.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(out)), nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, data, mode)
}

func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
