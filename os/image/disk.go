package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
)

// BootFile is what the firmware starts without being told: the last boot file that is
// known to work.
const BootFile = "EFI/BOOT/BOOTX64.EFI"

const (
	mib = 1 << 20
	// The ESP has room for three boot files, a slot for a root file system that is several
	// times today's. The data partition grows when the machine starts.
	alignment = 1 * mib
	espSize   = 256 * mib
	slotSize  = 384 * mib
	dataSize  = 128 * mib
	diskSize  = alignment + espSize + 2*slotSize + dataSize + alignment
)

// writeDisk makes file a disk that starts the boot file on the root file system in its
// first slot. What is empty takes no space.
func writeDisk(file string, uki []byte, r *root, made time.Time) (err error) {
	if len(r.data) > slotSize {
		return fmt.Errorf("a root file system of %d MiB does not fit into a slot of %d MiB", len(r.data)/mib, slotSize/mib)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(diskSize); err != nil {
		return err
	}
	table := partitions(r)
	if err := table.Write(f, diskSize); err != nil {
		return err
	}
	esp := &fat.Volume{Size: espSize, Label: "BOTHY-ESP", ID: 0xb0741e5b, Time: made, Files: []fat.File{{Path: BootFile, Data: uki}}}
	if err := esp.Write(io.NewOffsetWriter(f, table.Partitions[0].Offset())); err != nil {
		return fmt.Errorf("make the EFI system partition: %w", err)
	}
	_, err = f.WriteAt(r.data, table.Partitions[1].Offset())
	return err
}

// partitions is the partition table of a disk.
func partitions(r *root) *gpt.Table {
	t := &gpt.Table{Disk: gpt.DeriveGUID("disk " + r.hash.String())}
	at := int64(alignment)
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{
		{disks.ESP, gpt.TypeESP, espSize},
		{disks.RootA, gpt.TypeLinux, slotSize},
		{disks.RootB, gpt.TypeLinux, slotSize},
		{disks.Data, gpt.TypeLinux, dataSize},
	} {
		first := uint64(at / gpt.SectorSize)
		t.Partitions = append(t.Partitions, gpt.Partition{
			Type: p.kind, GUID: gpt.DeriveGUID(p.name + " " + r.hash.String()), Name: p.name,
			First: first, Last: first + uint64(p.size/gpt.SectorSize) - 1,
		})
		at += p.size
	}
	return t
}
