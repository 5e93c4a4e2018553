package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Attached lists what is attached, for status: the pinned attachments, by the names of their pins, and filters.
func (d *Dataplane) Attached() ([]string, error) {
	names, err := Attached(d.dir)
	if _, filters := d.devices.(filterBackend); err != nil || !filters {
		return names, err
	}
	more, err := Filters()
	return append(names, more...), err
}

// Attached lists the pinned attachments below dir, by the names of their pins. There are none of interfaces where the kernel
// has no tcx; see [Filters].
func Attached(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "links"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Cleanup removes every pin below dir: links go, and with them the attachments; maps
// go with their last user. It needs no loaded programs. Filters of the cls_bpf
// back end are removed with their interface or by [DetachFilters].
func Cleanup(dir string) error {
	var errs []error
	names, err := Attached(dir)
	errs = append(errs, err)
	for _, n := range names {
		errs = append(errs, os.Remove(filepath.Join(dir, "links", n)))
	}
	for _, sub := range []string{"links", "maps", spliceDir} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, sub)))
	}
	return errors.Join(errs...)
}

// DetachFilters removes the filters of the cls_bpf back end from an interface.
func DetachFilters(dev string) error {
	return detach(filterBackend{}, dev)
}
