package install

import (
	"crypto/rand"
	"fmt"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
)

// BootFile is what the firmware starts without being told: the last boot file that is
// known to work.
const BootFile = "EFI/BOOT/BOOTX64.EFI"

const mib = 1 << 20

// The sizes of partitions, in bytes. The ESP has room for three boot files, a slot for a root
// file system that is several times today's. The data partition is the rest of the disk, and
// DataSize at least.
const (
	Alignment = 1 * mib
	ESPSize   = 256 * mib
	SlotSize  = 384 * mib
	DataSize  = 128 * mib
	// MinSize is the smallest disk.
	MinSize = Alignment + ESPSize + 2*SlotSize + DataSize + Alignment
)

// The label and the serial number of the file system with the boot files.
const (
	ESPLabel = "BOTHY-ESP"
	ESPID    = 0xb0741e5b
)

// Positions of the partitions in a table.
const (
	espPart = iota
	rootPart
	_
	dataPart
)

// Table divides a disk of size bytes. Guid makes the identifier of a partition, or of the
// disk, from its name.
func Table(size int64, guid func(name string) gpt.GUID) *gpt.Table {
	t := &gpt.Table{Disk: guid("disk")}
	at := int64(Alignment)
	rest := (int64(gpt.LastUsable(size))+1)*gpt.SectorSize/mib*mib - Alignment - ESPSize - 2*SlotSize
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{
		{disks.ESP, gpt.TypeESP, ESPSize},
		{disks.RootA, gpt.TypeLinux, SlotSize},
		{disks.RootB, gpt.TypeLinux, SlotSize},
		{disks.Data, gpt.TypeLinux, rest},
	} {
		first := uint64(at / gpt.SectorSize)
		t.Partitions = append(t.Partitions, gpt.Partition{
			Type: p.kind, GUID: guid(p.name), Name: p.name, First: first, Last: first + uint64(p.size/gpt.SectorSize) - 1,
		})
		at += p.size
	}
	return t
}

// fresh makes identifiers that no other disk has.
func fresh(string) gpt.GUID {
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never fails
	return gpt.DeriveGUID(fmt.Sprintf("%x", seed))
}
