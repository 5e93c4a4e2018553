// Package reset makes a machine forget: the data partition, which has everything that a
// machine knows, is blank at its next start.
//
// That it is to be so is a bit of the partition table, set while the machine runs and
// cleared by process 1 once the partition is blank: wherever the power goes, the machine
// starts with all it had, or with nothing.
//
// What was on the partition is discarded, which the disk may do at its leisure, or never:
// whoever gives a disk away overwrites it.
package reset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
)

// wanted is the attribute of a data partition that is to be made blank. Bits from 48 on are
// for the type of the partition to define.
const wanted = 1 << 48

// Request has the partition that is mounted on dir be blank at the next start.
func Request(dir string) error {
	p, err := mountedOn(dir)
	if err != nil {
		return err
	}
	return change(p, func(part *gpt.Partition) { part.Attributes |= wanted })
}

// mountedOn returns the partition that is mounted on a directory.
func mountedOn(dir string) (disks.Partition, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return disks.Partition{}, fmt.Errorf("find the data partition: %w", err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, p := range disks.Partitions(disks.Data) {
		if p.Number == number {
			return p, nil
		}
	}
	return disks.Partition{}, fmt.Errorf("%s is on no data partition of bothy's", dir)
}

// Finish makes a partition blank if that was asked for, and reports whether it was. Nothing
// may use it.
func Finish(p disks.Partition) (done bool, err error) {
	asked := false
	if err := look(p, func(part *gpt.Partition) { asked = part.Attributes&wanted != 0 }); err != nil || !asked {
		return false, err
	}
	if err := erase(p.Device); err != nil {
		return false, fmt.Errorf("erase %s: %w", p.Device, err)
	}
	// Only now: what follows may be done again, and must not be left out.
	return true, change(p, func(part *gpt.Partition) { part.Attributes &^= wanted })
}

// headSize and tailSize are zeros afterwards, whether the disk can discard or not: what is
// there says what the rest means.
const headSize, tailSize = 16 << 20, 1 << 20

// erase makes a device blank.
func erase(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	const secureDiscard, discard = 0x127d, 0x1277
	area := [2]uint64{0, uint64(size)}
	for _, how := range []uintptr{secureDiscard, discard} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), how, uintptr(unsafe.Pointer(&area))); errno == 0 { //nolint:gosec // the kernel reads it
			break
		}
	}
	zeros := make([]byte, 1<<20)
	for _, part := range []struct{ at, size int64 }{{0, min(headSize, size)}, {max(size-tailSize, 0), min(tailSize, size)}} {
		for at := int64(0); at < part.size; at += int64(len(zeros)) {
			if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), part.size-at)], part.at+at); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

func look(p disks.Partition, visit func(*gpt.Partition)) error { return edit(p, false, visit) }

func change(p disks.Partition, visit func(*gpt.Partition)) error { return edit(p, true, visit) }

func edit(p disks.Partition, write bool, visit func(*gpt.Partition)) error {
	disk, err := os.OpenFile(p.Disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	table, err := gpt.Read(disk, size)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(p.Index)
	if err != nil || number < 1 || number > len(table.Partitions) || table.Partitions[number-1].Name != p.Name {
		return errors.Join(err, fmt.Errorf("partition %s of %s is not %s", p.Index, p.Disk, p.Name))
	}
	visit(&table.Partitions[number-1])
	if !write {
		return nil
	}
	return table.Write(disk, size)
}
