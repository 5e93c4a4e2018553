package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
)

// The installation medium is a disk and an optical medium at once: a partition table in what
// ISO 9660 leaves to the system, and an ISO 9660 file system (ECMA-119) whose two files are
// the partitions. Firmware starts it from a stick by the first, from a drive by the entry
// that El Torito, as the UEFI specification has it (13.3.2), puts beside the second.

// Sectors of ISO 9660, and where things are in them.
const (
	isoSector      = 2048
	isoPrimary     = 16
	isoBootRecord  = 17
	isoTerminator  = 18
	isoPathsLittle = 19
	isoPathsBig    = 20
	isoRootDir     = 21
	isoCatalog     = 22
)

// isoLabel is the name of the medium. It is not that of a seed.
const isoLabel = "BOTHY"

// writeISO makes file an installation medium.
func writeISO(file string, uki []byte, r *root, made time.Time) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const begin = 1 * mib
	espSize := (int64(fat.MinSize) + int64(len(uki)) + mib) / mib * mib
	rootSize := (int64(len(r.data)) + mib - 1) / mib * mib
	size := begin + espSize + rootSize + mib
	if err := f.Truncate(size); err != nil {
		return err
	}
	table := &gpt.Table{Disk: r.guid("medium")}
	for _, p := range []struct {
		name     string
		kind     gpt.GUID
		at, size int64
	}{{disks.ESP, gpt.TypeESP, begin, espSize}, {disks.RootA, gpt.TypeLinux, begin + espSize, rootSize}} {
		first := uint64(p.at / gpt.SectorSize)
		table.Partitions = append(table.Partitions, gpt.Partition{
			Type: p.kind, GUID: r.guid("medium " + p.name), Name: p.name, First: first, Last: first + uint64(p.size/gpt.SectorSize) - 1,
		})
	}
	if err := table.Write(f, size); err != nil {
		return err
	}
	if err := espOf(uki, espSize, made).Write(io.NewOffsetWriter(f, begin)); err != nil {
		return fmt.Errorf("make the EFI system partition: %w", err)
	}
	if _, err := f.WriteAt(r.data, begin+espSize); err != nil {
		return err
	}
	esp := isoFile{"ESP.IMG;1", begin, espSize}
	iso := isoVolume{made: made.UTC(), size: size, files: []isoFile{esp, {"ROOT.IMG;1", begin + espSize, int64(len(r.data))}}}
	_, err = f.WriteAt(iso.encode(esp), isoPrimary*isoSector)
	return err
}

// isoFile is a file of the medium, by its place and size in bytes.
type isoFile struct {
	name     string
	at, size int64
}

type isoVolume struct {
	made  time.Time
	size  int64
	files []isoFile
}

// encode is everything from the primary descriptor to the boot catalog.
func (v *isoVolume) encode(boot isoFile) []byte {
	out := make([]byte, (isoCatalog+1-isoPrimary)*isoSector)
	at := func(sector int) []byte { return out[(sector-isoPrimary)*isoSector:][:isoSector] }
	v.primary(at(isoPrimary))
	record := at(isoBootRecord)
	copy(record, "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(record[71:], isoCatalog)
	copy(at(isoTerminator), "\xffCD001\x01")
	// The only directory is the root, which is its own parent.
	little, big := at(isoPathsLittle), at(isoPathsBig)
	little[0], big[0] = 1, 1
	binary.LittleEndian.PutUint32(little[2:], isoRootDir)
	binary.LittleEndian.PutUint16(little[6:], 1)
	binary.BigEndian.PutUint32(big[2:], isoRootDir)
	binary.BigEndian.PutUint16(big[6:], 1)
	dir := at(isoRootDir)
	n := v.record(dir, "\x00", isoRootDir*isoSector, isoSector, true)
	n += v.record(dir[n:], "\x01", isoRootDir*isoSector, isoSector, true)
	for _, f := range v.files {
		n += v.record(dir[n:], f.name, f.at, f.size, false)
	}
	isoBootCatalog(at(isoCatalog), boot)
	return out
}

const isoPathsSize = 10

func (v *isoVolume) primary(d []byte) {
	copy(d, "\x01CD001\x01")
	for _, text := range []struct{ at, size int }{{8, 32}, {40, 32}, {190, 128}, {318, 128}, {446, 128}, {574, 128}, {702, 37}, {739, 37}, {776, 37}} {
		copy(d[text.at:], fmt.Sprintf("%-*s", text.size, ""))
	}
	copy(d[40:], isoLabel)
	both32(d[80:], uint32(v.size/isoSector))
	both16(d[120:], 1)
	both16(d[124:], 1)
	both16(d[128:], isoSector)
	both32(d[132:], isoPathsSize)
	binary.LittleEndian.PutUint32(d[140:], isoPathsLittle)
	binary.BigEndian.PutUint32(d[148:], isoPathsBig)
	v.record(d[156:], "\x00", isoRootDir*isoSector, isoSector, true)
	for i, t := range []string{v.made.Format("20060102150405") + "00\x00", v.made.Format("20060102150405") + "00\x00", "0000000000000000\x00", "0000000000000000\x00"} {
		copy(d[813+17*i:], t)
	}
	d[881] = 1 // version of the structure
}

// record writes an entry of a directory and returns how long it is.
func (v *isoVolume) record(d []byte, name string, at, size int64, dir bool) int {
	length := 33 + len(name)
	length += length % 2
	d[0] = byte(length)
	both32(d[2:], uint32(at/isoSector))
	both32(d[10:], uint32(size))
	t := v.made
	copy(d[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	if dir {
		d[25] = 2
	}
	both16(d[28:], 1)
	d[32] = byte(len(name))
	copy(d[33:], name)
	return length
}

// isoBootCatalog has one entry, for UEFI. How many sectors it loads is left to the firmware.
func isoBootCatalog(d []byte, boot isoFile) {
	const efi, bootable = 0xef, 0x88
	le := binary.LittleEndian
	d[0], d[1], d[30], d[31] = 1, efi, 0x55, 0xaa
	copy(d[4:], "bothy")
	sum := uint16(0)
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(d[i:])
	}
	le.PutUint16(d[28:], -sum)
	d[32] = bootable
	le.PutUint32(d[40:], uint32(boot.at/isoSector))
}

// both32 and both16 write a number in both orders of bytes.
func both32(d []byte, n uint32) {
	binary.LittleEndian.PutUint32(d, n)
	binary.BigEndian.PutUint32(d[4:], n)
}

func both16(d []byte, n uint16) {
	binary.LittleEndian.PutUint16(d, n)
	binary.BigEndian.PutUint16(d[2:], n)
}
