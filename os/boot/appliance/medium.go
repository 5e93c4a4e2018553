package appliance

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/os/boot/devmapper"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/verity"
)

// installedFirst puts slots of disks with a data partition before those of installation
// media: a medium that was left in the machine must not keep the same system from starting
// where it was installed.
func installedFirst(slots, data []disks.Partition) []disks.Partition {
	rank := func(p disks.Partition) int {
		if slices.ContainsFunc(data, func(d disks.Partition) bool { return d.Disk == p.Disk }) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(slots, func(a, b disks.Partition) int { return cmp.Compare(rank(a), rank(b)) })
	return slots
}

// mediumName is what the device mapper calls the part of an optical medium that has the root
// file system.
const mediumName = "bothy-medium"

// findMedium looks for the root file system on optical media, whose partition tables the
// kernel does not read.
func findMedium(args rootArgs, otherwise error) (disks.Partition, *verity.Superblock, error) {
	drives, err := filepath.Glob("/dev/sr*")
	if err != nil || len(drives) == 0 {
		return disks.Partition{}, nil, otherwise
	}
	errs := []error{otherwise}
	for _, drive := range drives {
		part, sb, err := mediumSlot(drive, args)
		if err == nil {
			p, err := mapMedium(drive, part, sb)
			return p, sb, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", drive, err))
	}
	return disks.Partition{}, nil, errors.Join(errs...)
}

// mediumSlot finds the root file system by the partition table of a medium.
func mediumSlot(drive string, args rootArgs) (*gpt.Partition, *verity.Superblock, error) {
	f, err := os.Open(drive)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, nil, err
	}
	table, err := gpt.Read(f, size)
	if err != nil {
		return nil, nil, err
	}
	for i, p := range table.Partitions {
		if p.Name != disks.RootA {
			continue
		}
		sb, err := verity.Find(io.NewSectionReader(f, p.Offset(), p.Size()), args.blocks, args.hash)
		return &table.Partitions[i], sb, err
	}
	return nil, nil, fmt.Errorf("it has no partition %s", disks.RootA)
}

// mapMedium makes a part of a medium a device.
func mapMedium(drive string, part *gpt.Partition, sb *verity.Superblock) (disks.Partition, error) {
	number, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(drive), "dev"))
	if err != nil {
		return disks.Partition{}, err
	}
	device, err := devmapper.CreateReadOnly(mediumName, "linear", fmt.Sprintf("%s %d", strings.TrimSpace(string(number)), part.First), sb.Size())
	if err != nil {
		return disks.Partition{}, err
	}
	if number, err = os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(device), "dev")); err != nil {
		return disks.Partition{}, err
	}
	return disks.Partition{Name: part.Name, Device: device, Number: strings.TrimSpace(string(number)), Disk: drive}, nil
}
