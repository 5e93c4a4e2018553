package settings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Sysctls are settings of the kernel.
type Sysctls struct {
	// Root is where the kernel shows them; /proc/sys.
	Root string
	// OriginalsFile keeps the values from before any was set, until the machine starts
	// again. It is in memory.
	OriginalsFile string
	// Only limits what is set, by the file's path below Root; nil for no limit.
	Only func(file string) bool
}

// Name is "sysctls".
func (*Sysctls) Name() string { return "sysctls" }

// Apply sets what is new or different, and puts back what is not set any longer.
func (p *Sysctls) Apply(_ context.Context, _, to *Settings) error {
	originals, err := p.originals()
	if err != nil {
		return err
	}
	want := p.values(to)
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(want)) {
		if err := p.setOne(originals, file, want[file]); err != nil {
			errs = append(errs, err)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(originals)) {
		if _, wanted := want[file]; wanted {
			continue
		}
		if err := p.write(file, originals[file]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		delete(originals, file)
	}
	return errors.Join(append(errs, p.keep(originals))...)
}

func (p *Sysctls) values(s *Settings) map[string]string {
	out := map[string]string{}
	for name, value := range s.Sysctls {
		if file := v1alpha1.SysctlPath(name); p.Only == nil || p.Only(file) {
			out[file] = value
		}
	}
	return out
}

func (p *Sysctls) setOne(originals map[string]string, file, value string) error {
	before, err := os.ReadFile(filepath.Join(p.Root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: this kernel has no such setting; correct the name, or name the module that has it in modules", dotted(file))
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) { // some can only be written
		return fmt.Errorf("%s: %w", dotted(file), err)
	}
	old := strings.TrimSpace(string(before))
	if strings.Join(strings.Fields(old), " ") == strings.Join(strings.Fields(value), " ") {
		return nil
	}
	if _, known := originals[file]; !known {
		originals[file] = old
		if err := p.keep(originals); err != nil {
			return err
		}
	}
	return p.write(file, value)
}

func (p *Sysctls) write(file, value string) error {
	err := os.WriteFile(filepath.Join(p.Root, file), []byte(value), 0o644)
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%s: the kernel does not take the value %q", dotted(file), value)
	case err != nil:
		return fmt.Errorf("%s: %w", dotted(file), err)
	}
	return nil
}

func (p *Sysctls) originals() (map[string]string, error) {
	out := map[string]string{}
	data, err := os.ReadFile(p.OriginalsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read the values from before: %w", err)
	}
	return out, nil
}

func (p *Sysctls) keep(originals map[string]string) error {
	data, err := json.Marshal(originals)
	if err != nil {
		return err
	}
	return os.WriteFile(p.OriginalsFile, data, 0o600)
}

// dotted is the usual name of a sysctl.
func dotted(file string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, file)
}

// Namespaced says whether the namespaces of a node have a sysctl of their own, so that
// setting it changes nothing for the machine that the node runs on.
func Namespaced(file string) bool {
	for _, prefix := range []string{"net/", "fs/mqueue/", "kernel/shm", "kernel/msg"} {
		if strings.HasPrefix(file, prefix) {
			return true
		}
	}
	return file == "kernel/sem"
}
