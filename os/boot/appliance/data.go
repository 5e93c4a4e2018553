package appliance

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/boot/ext4"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/reset"
)

// mountData mounts the data partition. It is made as large as the disk allows, and gets a
// file system when it is blank.
func mountData(log *slog.Logger) error {
	p, err := dataPartition()
	if errors.Is(err, errNoData) {
		return mountMedium(log, err)
	}
	if err != nil {
		return err
	}
	wiped, err := reset.Finish(p)
	if err != nil {
		return err
	}
	if wiped {
		log.Warn("the data partition was made blank, as was asked for", "device", p.Device)
	}
	size, err := growPartition(log, p)
	if err != nil {
		// What there is can be used as it is.
		log.Warn("the data partition keeps its size", "device", p.Device, "err", err)
		size = 0
	}
	device, err := os.OpenFile(p.Device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	if size == 0 {
		if size, err = device.Seek(0, 2); err != nil {
			return err
		}
	}
	made, err := ext4.Prepare(device, size)
	if err != nil {
		return err
	}
	log.Info("mounting the data partition", "device", p.Device, "mib", size>>20, "new", made)
	if err := mountOnDevice(p.Device, boot.StateDir); err != nil {
		return fmt.Errorf("mount the data partition %s: %w", p.Device, err)
	}
	if err := ext4.Grow(boot.StateDir, size); err != nil {
		log.Warn("the data partition is not used in full", "err", err)
	}
	return nil
}

func mountOnDevice(device, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return unix.Mount(device, dir, "ext4", unix.MS_NOATIME, "prjquota,"+dataReserve)
}

// dataReserve keeps the last blocks of the data partition (3 %, see ext4) for the machine's own processes, which have
// CAP_SYS_RESOURCE. By default the kernel gives them to everybody whose number is 0 as well, and most containers' is: a pod that
// fills the disk would stop etcd. The number here is nobody's.
const dataReserve = "resuid=4294967294"

// errNoData says that the medium that the machine was started from has no data partition.
var errNoData = errors.New("no data partition")

// mountMedium keeps in memory what a machine that was started from an installation medium
// knows.
func mountMedium(log *slog.Logger, why error) error {
	log.Info("started from a medium to install from", "because", why)
	if err := mountOn("tmpfs", boot.StateDir, unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return err
	}
	return os.WriteFile(boot.MediumFile, nil, 0o600)
}

// dataPartition finds the partition on the disk that the machine was started from. Others
// have the name of another installation.
func dataPartition() (disks.Partition, error) {
	slot := disks.Beneath(disks.RootDevice)
	for _, r := range disks.Partitions(disks.RootA, disks.RootB) {
		if r.Device != slot {
			continue
		}
		for _, p := range disks.Partitions(disks.Data) {
			if p.Disk == r.Disk {
				return p, nil
			}
		}
		return disks.Partition{}, fmt.Errorf("disk %s has no partition %s: %w", r.Disk, disks.Data, errNoData)
	}
	return disks.Partition{}, fmt.Errorf("the root file system is on no partition of bothy's: %w", errNoData)
}

// growPartition makes the data partition reach to the end of its disk, and returns its
// size in bytes. It is the last one.
func growPartition(log *slog.Logger, p disks.Partition) (int64, error) {
	disk, err := os.OpenFile(p.Disk, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	size, err := disk.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	table, err := gpt.Read(disk, size)
	if err != nil {
		return 0, err
	}
	number, err := strconv.Atoi(p.Index)
	if err != nil || number != len(table.Partitions) {
		return 0, fmt.Errorf("partition %s is not the last one of %s", p.Index, p.Disk)
	}
	last := &table.Partitions[number-1]
	end := extendedEnd(last, size)
	if end <= last.Last {
		return last.Size(), nil
	}
	last.Last = end
	if err := table.Write(disk, size); err != nil {
		return 0, err
	}
	log.Info("the data partition has grown", "device", p.Device, "mib", last.Size()>>20)
	return last.Size(), resizePartition(disk, number, last)
}

// extendedEnd is the last sector of a partition that reaches to the end of a disk, in
// whole MiB.
func extendedEnd(p *gpt.Partition, diskSize int64) uint64 {
	const perMiB = 1 << 20 / gpt.SectorSize
	return (gpt.LastUsable(diskSize)+1)/perMiB*perMiB - 1
}

// resizePartition tells the kernel, which reads a partition table only while nothing on
// the disk is in use. The structures are those of uapi/linux/blkpg.h.
func resizePartition(disk *os.File, number int, p *gpt.Partition) error {
	const blkpg, resize = 0x1269, 3
	partition := struct {
		start, length int64
		number        int32
		names         [128]byte
	}{p.Offset(), p.Size(), int32(number), [128]byte{}}
	request := struct {
		op, flags, length int32
		data              unsafe.Pointer
	}{resize, 0, int32(unsafe.Sizeof(partition)), unsafe.Pointer(&partition)} //nolint:gosec // the kernel reads it
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), blkpg, uintptr(unsafe.Pointer(&request))); errno != 0 { //nolint:gosec // as above
		return fmt.Errorf("tell the kernel that partition %d has grown: %w", number, errno)
	}
	return nil
}
