// Package gpt reads and writes the partition table of a disk: a GUID partition table as
// chapter 5 of the UEFI specification describes it, on sectors of 512 bytes.
//
// The image builder writes one, and the appliance grows the last partition of it when the
// image was written to a larger disk. A table is written so that at every moment one of
// its two copies is whole.
//
// It must not know what partitions are used for.
package gpt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// SectorSize is the unit of all positions, in bytes.
const SectorSize = 512

const (
	entrySize    = 128
	entryCount   = 128
	entrySectors = entryCount * entrySize / SectorSize
	headerSize   = 92
	revision     = 0x00010000
	// FirstUsable is the first sector that a partition can have.
	FirstUsable = 2 + entrySectors
	nameUnits   = 36
)

var signature = []byte("EFI PART")

// GUID is a globally unique identifier as it is on disk: the first three groups have
// their bytes reversed.
type GUID [16]byte

// Types of partitions.
var (
	// TypeESP holds what the firmware starts.
	TypeESP = MustParseGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	// TypeLinux is for file systems of Linux.
	TypeLinux = MustParseGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
)

// MustParseGUID reads a GUID that is part of the program.
func MustParseGUID(s string) GUID {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		panic("not a GUID: " + s)
	}
	return swap(GUID(raw))
}

// DeriveGUID makes a GUID that is always the same for the same seed.
func DeriveGUID(seed string) GUID {
	sum := sha256.Sum256([]byte(seed))
	g := GUID(sum[:16])
	g[6], g[8] = g[6]&0x0f|0x80, g[8]&0x3f|0x80 // version 8, variant of RFC 9562
	return swap(g)
}

func swap(g GUID) GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

// String is the usual notation, in lower case.
func (g GUID) String() string {
	readable := swap(g)
	h := hex.EncodeToString(readable[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Partition is one entry of a table.
type Partition struct {
	Type, GUID GUID
	// First and Last are sectors, both included.
	First, Last uint64
	// Attributes are those of the specification.
	Attributes uint64
	// Name has at most 36 characters of the basic plane.
	Name string
}

// Offset is where the partition begins, in bytes.
func (p Partition) Offset() int64 { return int64(p.First) * SectorSize }

// Size is how long it is, in bytes.
func (p Partition) Size() int64 { return int64(p.Last-p.First+1) * SectorSize }

// Table is what a disk is divided into.
type Table struct {
	Disk       GUID
	Partitions []Partition
}

// LastUsable is the last sector that a partition can have on a disk of size bytes.
func LastUsable(size int64) uint64 { return uint64(size/SectorSize) - entrySectors - 2 }

// Disk is what a table is written to. Sync returns once what was written survives a loss
// of power.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Write puts the table on a disk of size bytes: first the copy at the end, then the one at
// the beginning, which is in force.
func (t *Table) Write(d Disk, size int64) error {
	if err := t.check(size); err != nil {
		return err
	}
	entries, err := t.entries()
	if err != nil {
		return err
	}
	last := uint64(size/SectorSize) - 1
	backup := t.header(last, 1, last-entrySectors, size, entries)
	primary := t.header(1, last, 2, size, entries)
	for _, part := range []struct {
		data   []byte
		sector uint64
	}{
		{entries, last - entrySectors},
		{backup, last},
		{nil, 0},
		{entries, 2},
		{primary, 1},
		{protectiveMBR(size), 0},
		{nil, 0},
	} {
		if part.data == nil {
			err = d.Sync()
		} else {
			_, err = d.WriteAt(part.data, int64(part.sector)*SectorSize)
		}
		if err != nil {
			return fmt.Errorf("write the partition table: %w", err)
		}
	}
	return nil
}

func (t *Table) check(size int64) error {
	if len(t.Partitions) > entryCount {
		return fmt.Errorf("a partition table has room for %d partitions, not for %d", entryCount, len(t.Partitions))
	}
	end := uint64(FirstUsable - 1)
	for _, p := range t.Partitions {
		if p.First <= end || p.Last < p.First || p.Last > LastUsable(size) {
			return fmt.Errorf("partition %q at sectors %d to %d does not fit behind sector %d on a disk of %d bytes", p.Name, p.First, p.Last, end, size)
		}
		end = p.Last
	}
	return nil
}

func (t *Table) entries() ([]byte, error) {
	out := make([]byte, entryCount*entrySize)
	le := binary.LittleEndian
	for i, p := range t.Partitions {
		e := out[i*entrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.GUID[:])
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		le.PutUint64(e[48:], p.Attributes)
		name := utf16.Encode([]rune(p.Name))
		if len(name) > nameUnits {
			return nil, fmt.Errorf("the name of partition %q is longer than %d characters", p.Name, nameUnits)
		}
		for j, u := range name {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	return out, nil
}

func (t *Table) header(mine, other, entriesAt uint64, size int64, entries []byte) []byte {
	h := make([]byte, SectorSize)
	le := binary.LittleEndian
	copy(h, signature)
	le.PutUint32(h[8:], revision)
	le.PutUint32(h[12:], headerSize)
	le.PutUint64(h[24:], mine)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], FirstUsable)
	le.PutUint64(h[48:], LastUsable(size))
	copy(h[56:], t.Disk[:])
	le.PutUint64(h[72:], entriesAt)
	le.PutUint32(h[80:], entryCount)
	le.PutUint32(h[84:], entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	return h
}

// protectiveMBR tells programs that know no GUID partition tables that the disk is full.
func protectiveMBR(size int64) []byte {
	m := make([]byte, SectorSize)
	e := m[446:]
	copy(e[1:], []byte{0, 2, 0})
	e[4] = 0xee
	copy(e[5:], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(size/SectorSize-1, 0xffffffff)))
	m[510], m[511] = 0x55, 0xaa
	return m
}

// ErrNone says that a disk has no table that could be read.
var ErrNone = errors.New("no GUID partition table")

// Read returns the table of a disk of size bytes. When the first copy is damaged the one
// at the end is taken.
func Read(d io.ReaderAt, size int64) (*Table, error) {
	t, err := readAt(d, 1)
	if err == nil {
		return t, nil
	}
	if t, again := readAt(d, uint64(size/SectorSize)-1); again == nil {
		return t, nil
	}
	return nil, err
}

func readAt(d io.ReaderAt, sector uint64) (*Table, error) {
	h := make([]byte, SectorSize)
	if _, err := d.ReadAt(h, int64(sector)*SectorSize); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	le := binary.LittleEndian
	if !bytes.Equal(h[:8], signature) || le.Uint32(h[12:]) != headerSize {
		return nil, fmt.Errorf("%w at sector %d", ErrNone, sector)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:headerSize]) != sum || le.Uint64(h[24:]) != sector {
		return nil, fmt.Errorf("%w: the header at sector %d is damaged", ErrNone, sector)
	}
	if le.Uint32(h[80:]) != entryCount || le.Uint32(h[84:]) != entrySize {
		return nil, fmt.Errorf("%w: %d entries of %d bytes are not supported", ErrNone, le.Uint32(h[80:]), le.Uint32(h[84:]))
	}
	entries := make([]byte, entryCount*entrySize)
	if _, err := d.ReadAt(entries, int64(le.Uint64(h[72:]))*SectorSize); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("%w: the entries of sector %d are damaged", ErrNone, sector)
	}
	return &Table{Disk: GUID(h[56:72]), Partitions: partitions(entries)}, nil
}

func partitions(entries []byte) []Partition {
	le := binary.LittleEndian
	var out []Partition
	for e := entries; len(e) > 0; e = e[entrySize:] {
		p := Partition{Type: GUID(e[:16]), GUID: GUID(e[16:32]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:])}
		if p.Type == (GUID{}) {
			continue
		}
		var name []uint16
		for j := range nameUnits {
			if u := le.Uint16(e[56+2*j:]); u != 0 {
				name = append(name, u)
			}
		}
		p.Name = string(utf16.Decode(name))
		out = append(out, p)
	}
	return out
}
