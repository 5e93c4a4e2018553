package settings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/boot/ext4"
)

// Disks are further disks for data, each with one file system on all of it.
type Disks struct {
	// Dir has the places where they are mounted.
	Dir string
	// List returns the disks that there are; nil is [disks.List].
	List func() []disks.Disk
	// Mount and Unmount are those of the kernel where they are nil.
	Mount   func(device, dir string) error
	Unmount func(dir string) error
}

// Name is "disks".
func (*Disks) Name() string { return "disks" }

// Apply mounts what is new and unmounts what is not wanted any longer. A disk that is in
// use stays mounted until the machine starts again.
func (p *Disks) Apply(_ context.Context, from, to *Settings) error {
	var errs []error
	for _, d := range from.Disks {
		if !slices.Contains(to.Disks, d) {
			errs = append(errs, p.unmount(filepath.Join(p.Dir, d.Name)))
		}
	}
	for _, d := range to.Disks {
		if err := p.mount(d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Disks) mount(d v1alpha1.DiskSpec) error {
	dir := filepath.Join(p.Dir, d.Name)
	if mounted(dir) {
		return nil
	}
	disk, err := p.find(d)
	if err != nil {
		return err
	}
	if len(disk.Partitions) > 0 || disk.InUse != "" {
		return fmt.Errorf("disk %s is not blank: partitions %v %s", disk.Device, disk.Partitions, disk.InUse)
	}
	if err := prepare(disk); err != nil {
		return err
	}
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	mount := p.Mount
	if mount == nil {
		mount = func(device, dir string) error {
			return unix.Mount(device, dir, "ext4", unix.MS_NOATIME|unix.MS_NODEV, "prjquota")
		}
	}
	if err := mount(disk.Device, dir); err != nil {
		return fmt.Errorf("mount %s: %w", disk.Device, err)
	}
	if p.Mount != nil {
		return nil
	}
	return ext4.Grow(dir, disk.Size)
}

func prepare(disk *disks.Disk) error {
	device, err := os.OpenFile(disk.Device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	_, err = ext4.Prepare(device, disk.Size)
	return err
}

// find returns the disk that is meant, which has to be the only one.
func (p *Disks) find(d v1alpha1.DiskSpec) (*disks.Disk, error) {
	list := p.List
	if list == nil {
		list = disks.List
	}
	all := list()
	var found []disks.Disk
	var known []string
	for _, disk := range all {
		if d.Serial != "" && disk.Serial == d.Serial || d.Path != "" && disk.Device == d.Path {
			found = append(found, disk)
		}
		known = append(known, fmt.Sprintf("%s (serial %q)", disk.Device, disk.Serial))
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d disks are %s%s; this machine has %v", len(found), d.Serial, d.Path, known)
	}
	return &found[0], nil
}

func (p *Disks) unmount(dir string) error {
	if !mounted(dir) && p.Unmount == nil {
		return nil
	}
	unmount := p.Unmount
	if unmount == nil {
		unmount = func(dir string) error { return unix.Unmount(dir, 0) }
	}
	if err := unmount(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// mounted says whether something is mounted on a directory.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}
