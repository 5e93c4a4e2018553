package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is an unpacked kernel.
type Kernel struct {
	// Name is what the lock calls it, such as "6.1".
	Name string
	// Release is what `uname -r` says in it.
	Release string
	// Image is the bootable file.
	Image string
	// Modules is the directory that belongs at /lib/modules/RELEASE. Modules in it
	// are not compressed, and the lists that modprobe reads are there.
	Modules string
}

// Kernel returns a kernel, fetched and unpacked if it is the first time.
func (s *Store) Kernel(ctx context.Context, name string) (*Kernel, error) {
	k, ok := s.lock.Kernels[name]
	if !ok {
		return nil, fmt.Errorf("there is no kernel %q in %s, only %s", name, s.lock.file, strings.Join(slices.Sorted(maps.Keys(s.lock.Kernels)), ", "))
	}
	first, err := s.lock.Find(k.Packages[0])
	if err != nil {
		return nil, err
	}
	dir, err := s.once("kernel-"+k.Release+"_"+first.SHA256[:12], func(dir string) error { return s.assemble(ctx, k, dir) })
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	return &Kernel{Name: name, Release: k.Release, Image: filepath.Join(dir, "vmlinuz"), Modules: filepath.Join(dir, "modules")}, nil
}

// assemble brings the parts of a kernel into one layout: where they are in the
// packages has changed over the years.
func (s *Store) assemble(ctx context.Context, k KernelLock, dir string) error {
	unpacked := filepath.Join(dir, "unpacked")
	debs, err := s.fetch(ctx, k.Packages...)
	if err != nil {
		return err
	}
	for _, deb := range debs {
		err := run(ctx, "", "dpkg-deb", "--extract", deb, unpacked)
		if err := errors.Join(err, os.Remove(deb)); err != nil {
			return err
		}
	}
	if err := moveFirst(filepath.Join(dir, "vmlinuz"), unpacked, "boot/vmlinuz-"+k.Release, "usr/lib/modules/"+k.Release+"/vmlinuz"); err != nil {
		return err
	}
	modules := filepath.Join(dir, "modules")
	if err := moveFirst(modules, unpacked, "usr/lib/modules/"+k.Release, "lib/modules/"+k.Release); err != nil {
		return err
	}
	if err := decompress(ctx, modules); err != nil {
		return err
	}
	if err := WriteModuleLists(modules); err != nil {
		return err
	}
	return os.RemoveAll(unpacked)
}

func moveFirst(to, root string, candidates ...string) error {
	for _, c := range candidates {
		if from := filepath.Join(root, c); exists(from) {
			return os.Rename(from, to)
		}
	}
	return fmt.Errorf("none of %s is in the package", strings.Join(candidates, ", "))
}

// decompress unpacks the modules: not every kernel can load them compressed.
func decompress(ctx context.Context, dir string) error {
	var files []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(files, 500) {
		if err := run(ctx, "", "xz", append([]string{"--decompress"}, some...)...); err != nil {
			return err
		}
	}
	return nil
}
