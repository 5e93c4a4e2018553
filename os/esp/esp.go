package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	sectorSize  = 512
	entrySize   = 32
	freeCluster = 0
	badCluster  = 0x0ffffff7
	endOfChain  = 0x0ffffff8 // and above
	linkMask    = 0x0fffffff
	// minClusters tells FAT32 from FAT16.
	minClusters = 65525
	// maxFile bounds what is read into memory, in bytes.
	maxFile = 512 << 20
)

// ErrDamaged says that the file system contradicts itself.
var ErrDamaged = errors.New("the file system is damaged")

// Disk is what the file system lies on. Sync returns once everything that was written
// survives a loss of power; a sector is written whole or not at all.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Volume is an open file system. It is for one goroutine.
type Volume struct {
	disk Disk
	// The layout, in sectors.
	perCluster, reserved, perTable uint32
	copies                         int
	root, clusters                 uint32
	info                           uint32
	// table is the first allocation table; dirty are the sectors of it that are not on the
	// disk yet.
	table []byte
	dirty map[uint32]bool
}

// Open reads the layout and the allocation table.
func Open(d Disk) (*Volume, error) {
	boot := make([]byte, sectorSize)
	if _, err := d.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("read the EFI system partition: %w", err)
	}
	le := binary.LittleEndian
	v := &Volume{
		disk: d, perCluster: uint32(boot[13]), reserved: uint32(le.Uint16(boot[14:])), copies: int(boot[16]),
		perTable: le.Uint32(boot[36:]), root: le.Uint32(boot[44:]), info: uint32(le.Uint16(boot[48:])), dirty: map[uint32]bool{},
	}
	sectors := le.Uint32(boot[32:])
	switch {
	case boot[510] != 0x55 || boot[511] != 0xaa || le.Uint16(boot[11:]) != sectorSize || le.Uint16(boot[22:]) != 0 || sectors == 0:
		return nil, fmt.Errorf("the EFI system partition holds no FAT32 file system with sectors of %d bytes", sectorSize)
	case v.perCluster == 0 || v.copies == 0 || v.reserved == 0 || uint64(v.reserved)+uint64(v.copies)*uint64(v.perTable) >= uint64(sectors):
		return nil, fmt.Errorf("%w: its sizes make no sense", ErrDamaged)
	}
	v.clusters = (sectors - v.reserved - uint32(v.copies)*v.perTable) / v.perCluster
	if v.clusters < minClusters || uint64(v.perTable)*sectorSize/4 < uint64(v.clusters)+2 {
		return nil, fmt.Errorf("the EFI system partition holds no FAT32 file system of %d clusters", v.clusters)
	}
	v.table = make([]byte, int(v.perTable)*sectorSize)
	if _, err := d.ReadAt(v.table, int64(v.reserved)*sectorSize); err != nil {
		return nil, fmt.Errorf("read the allocation table of the EFI system partition: %w", err)
	}
	return v, nil
}

func (v *Volume) clusterSize() int { return int(v.perCluster) * sectorSize }

func (v *Volume) offset(cluster uint32) int64 {
	return (int64(v.reserved) + int64(v.copies)*int64(v.perTable) + int64(cluster-2)*int64(v.perCluster)) * sectorSize
}

func (v *Volume) valid(cluster uint32) bool { return cluster >= 2 && cluster < v.clusters+2 }

func (v *Volume) link(cluster uint32) uint32 {
	return binary.LittleEndian.Uint32(v.table[4*cluster:]) & linkMask
}

func (v *Volume) setLink(cluster, to uint32) {
	le := binary.LittleEndian
	old := le.Uint32(v.table[4*cluster:])
	if old&linkMask == to&linkMask {
		return
	}
	le.PutUint32(v.table[4*cluster:], old&^linkMask|to&linkMask)
	v.dirty[4*cluster/sectorSize] = true
}

// chain lists the clusters of a file or directory.
func (v *Volume) chain(first uint32) ([]uint32, error) {
	var out []uint32
	for c := first; ; c = v.link(c) {
		if !v.valid(c) || len(out) > int(v.clusters) {
			return nil, fmt.Errorf("%w: a chain of clusters leads to %d", ErrDamaged, c)
		}
		out = append(out, c)
		if v.link(c) >= endOfChain {
			return out, nil
		}
	}
}

// content reads a chain.
func (v *Volume) content(first uint32) ([]byte, []uint32, error) {
	clusters, err := v.chain(first)
	if err != nil {
		return nil, nil, err
	}
	data := make([]byte, len(clusters)*v.clusterSize())
	err = v.runs(clusters, func(cluster uint32, from, to int) error {
		_, err := v.disk.ReadAt(data[from:to], v.offset(cluster))
		return err
	})
	return data, clusters, err
}

// runs visits pieces of a chain that lie one behind the other: their first cluster, and
// where in the content they begin and end.
func (v *Volume) runs(clusters []uint32, visit func(cluster uint32, from, to int) error) error {
	for i := 0; i < len(clusters); {
		n := 1
		for i+n < len(clusters) && clusters[i+n] == clusters[i]+uint32(n) {
			n++
		}
		if err := visit(clusters[i], i*v.clusterSize(), (i+n)*v.clusterSize()); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// ReadFile returns the content of a file. A path has slashes between its parts and none
// before them; case does not matter. What is not there is fs.ErrNotExist.
func (v *Volume) ReadFile(path string) ([]byte, error) {
	e, err := v.find(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if e.dir || e.size > maxFile {
		return nil, fmt.Errorf("read %s: it is no file of less than %d MiB", path, maxFile>>20)
	}
	if e.size == 0 {
		return nil, nil
	}
	data, _, err := v.content(e.first)
	if err == nil && len(data) < int(e.size) {
		err = fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, len(data), e.size)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data[:e.size], nil
}

// find follows a path.
func (v *Volume) find(path string) (*entry, error) {
	at := &entry{dir: true, first: v.root}
	for name := range strings.SplitSeq(path, "/") {
		if !at.dir {
			return nil, fs.ErrNotExist
		}
		d, err := v.directory(at.first)
		if err != nil {
			return nil, err
		}
		if at = d.lookup(name); at == nil {
			return nil, fs.ErrNotExist
		}
	}
	return at, nil
}
