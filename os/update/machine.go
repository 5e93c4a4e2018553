package update

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/efi"
	"github.com/bothy-os/bothy/os/gpt"
)

// description is that of the boot option.
const description = "bothy, on trial"

// Hardware is the machine that this program runs on.
type Hardware struct{ variables efi.Variables }

// NewHardware returns it; nothing is opened.
func NewHardware() *Hardware { return &Hardware{efi.Variables{Dir: efi.Dir}} }

// running returns the slot that the root file system is in.
func running() (disks.Partition, error) {
	device := disks.Beneath(disks.RootDevice)
	for _, p := range disks.Partitions(disks.RootA, disks.RootB) {
		if p.Device == device {
			return p, nil
		}
	}
	return disks.Partition{}, errors.New("the root file system is on no partition of bothy's")
}

// partition finds another one on the same disk.
func partition(names ...string) (disks.Partition, error) {
	root, err := running()
	if err != nil {
		return root, err
	}
	for _, p := range disks.Partitions(names...) {
		if p.Disk == root.Disk && p.Device != root.Device {
			return p, nil
		}
	}
	return disks.Partition{}, fmt.Errorf("disk %s has no partition %v beside the one that runs", root.Disk, names)
}

// ESP implements [Machine].
func (*Hardware) ESP() (Device, error) { return open(disks.ESP) }

// Slot implements [Machine].
func (*Hardware) Slot() (Device, error) { return open(disks.RootA, disks.RootB) }

func open(names ...string) (Device, error) {
	p, err := partition(names...)
	if err != nil {
		return nil, err
	}
	// Exclusive: what is mounted, or runs, cannot be opened so.
	f, err := os.OpenFile(p.Device, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("open partition %s: %w", p.Name, err)
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &device{f, size}, nil
}

// device is a partition of a disk.
type device struct {
	*os.File
	size int64
}

func (d *device) Size() int64 { return d.size }

// Forget has the kernel forget what it has of the disk in memory.
func (d *device) Forget() { _ = unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED) }

// Define implements [Machine].
func (h *Hardware) Define() error {
	o, err := option()
	if err == nil {
		_, err = h.variables.Define(o)
	}
	return err
}

// StartOnce implements [Machine].
func (h *Hardware) StartOnce() error {
	o, err := option()
	if err != nil {
		return err
	}
	return h.variables.StartOnce(o)
}

// option describes [NextFile] to the firmware.
func option() (efi.Option, error) {
	p, err := partition(disks.ESP)
	if err != nil {
		return efi.Option{}, err
	}
	disk, err := os.Open(p.Disk)
	if err != nil {
		return efi.Option{}, err
	}
	defer disk.Close()
	size, err := disk.Seek(0, 2)
	if err != nil {
		return efi.Option{}, err
	}
	table, err := gpt.Read(disk, size)
	if err != nil {
		return efi.Option{}, err
	}
	number, err := strconv.Atoi(p.Index)
	if err != nil || number < 1 || number > len(table.Partitions) {
		return efi.Option{}, fmt.Errorf("partition %s is not in the table of %s", p.Index, p.Disk)
	}
	return efi.Option{Description: description, Number: number, Partition: table.Partitions[number-1], Path: NextFile}, nil
}

// Pending implements [Machine].
func (h *Hardware) Pending() (bool, error) { return h.variables.Pending(description) }

// Cancel implements [Machine].
func (h *Hardware) Cancel() error { return h.variables.Cancel(description) }

// Keeps implements [Machine].
func (h *Hardware) Keeps() (bool, error) { return h.variables.Keeps(description) }

// SecureBoot implements [Machine].
func (h *Hardware) SecureBoot() bool { return h.variables.SecureBoot() }
