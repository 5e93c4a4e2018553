// Package fat writes FAT32 file systems: the EFI system partition of a disk, and seed
// volumes. The same files give the same bytes.
//
// It makes whole file systems and never changes one: on a running machine the kernel
// does. The layout is that of Microsoft's "FAT32 File System Specification" 1.03; files
// are laid out one after the other, so that there is nothing to allocate.
//
// It must not know what the files are for.
//
// fat.go: the file system; names.go: directory entries.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	sectorSize  = 512
	reserved    = 32
	copies      = 2
	infoSector  = 1
	backupBoot  = 6
	rootCluster = 2
	// minClusters is what makes a file system FAT32 and not FAT16: the number of
	// clusters, and nothing else.
	minClusters    = 65525
	maxClusterSize = 8 // sectors
	media          = 0xf8
	endOfChain     = 0x0fffffff
)

// MinSize is the smallest file system there can be, in bytes.
const MinSize = (minClusters+reserved+1200)*sectorSize + 1<<20

// File is a file of a file system.
type File struct {
	// Path has slashes between its parts and none before them.
	Path string
	Data []byte
}

// Volume is a file system to be written.
type Volume struct {
	// Size in bytes.
	Size int64
	// Label has at most 11 characters, in upper case.
	Label string
	// ID is the serial number.
	ID uint32
	// Time is when everything was made.
	Time  time.Time
	Files []File
}

// Write puts the file system at the beginning of w, which is blank: zeros are not written.
func (v *Volume) Write(w io.WriterAt) error {
	g, err := v.geometry()
	if err != nil {
		return err
	}
	root, err := v.tree()
	if err != nil {
		return err
	}
	b := &builder{w: w, geometry: g, time: v.Time, next: rootCluster}
	if err := b.directory(root, rootCluster, v.Label); err != nil {
		return fmt.Errorf("write the file system: %w", err)
	}
	return errors.Join(b.writeTables(), b.writeBoot(v))
}

// geometry is where things are, in sectors.
type geometry struct {
	sectors, perCluster, perTable, clusters uint32
}

func (v *Volume) geometry() (geometry, error) {
	if v.Size < MinSize || v.Size > 1<<40 {
		return geometry{}, fmt.Errorf("a FAT32 file system has at least %d bytes, not %d", MinSize, v.Size)
	}
	if len(v.Label) > 11 || v.Label != strings.ToUpper(v.Label) {
		return geometry{}, fmt.Errorf("the label %q has more than 11 characters, or small letters", v.Label)
	}
	g := geometry{sectors: uint32(v.Size / sectorSize)}
	for g.perCluster = maxClusterSize; ; g.perCluster /= 2 {
		// As if the tables took no space: they are a little larger than they need be.
		most := (g.sectors-reserved)/g.perCluster + rootCluster
		g.perTable = (most*4 + sectorSize - 1) / sectorSize
		g.clusters = (g.sectors - reserved - copies*g.perTable) / g.perCluster
		if g.clusters >= minClusters || g.perCluster == 1 {
			return g, nil
		}
	}
}

func (g geometry) clusterSize() int { return int(g.perCluster) * sectorSize }

func (g geometry) offset(cluster uint32) int64 {
	return (reserved + copies*int64(g.perTable) + int64(cluster-rootCluster)*int64(g.perCluster)) * sectorSize
}

// node is a directory, or a file if it has no children.
type node struct {
	name     string
	children []*node
	dir      bool
	data     []byte
}

func (v *Volume) tree() (*node, error) {
	root := &node{dir: true}
	for _, f := range v.Files {
		if f.Path != path.Clean(f.Path) || strings.HasPrefix(f.Path, "/") || strings.HasPrefix(f.Path, "..") {
			return nil, fmt.Errorf("%q is no path of a file system", f.Path)
		}
		at := root
		parts := strings.Split(f.Path, "/")
		for _, name := range parts[:len(parts)-1] {
			at = at.child(name)
		}
		at.children = append(at.children, &node{name: parts[len(parts)-1], data: f.Data})
	}
	root.sort()
	return root, nil
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.dir && c.name == name {
			return c
		}
	}
	c := &node{name: name, dir: true}
	n.children = append(n.children, c)
	return c
}

func (n *node) sort() {
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	for _, c := range n.children {
		c.sort()
	}
}

// builder lays out files.
type builder struct {
	geometry
	w    io.WriterAt
	time time.Time
	// table is the chain of every cluster so far; next is the first free one.
	table []uint32
	next  uint32
}

// allocate takes the clusters for so many bytes and returns the first.
func (b *builder) allocate(bytes int) (uint32, error) {
	n := uint32((bytes + b.clusterSize() - 1) / b.clusterSize())
	if b.next+n > b.clusters+rootCluster {
		return 0, fmt.Errorf("the files do not fit into %d clusters of %d bytes", b.clusters, b.clusterSize())
	}
	first := b.next
	for i := range n {
		link := first + i + 1
		if i == n-1 {
			link = endOfChain
		}
		b.table = append(b.table, link)
	}
	b.next += n
	return first, nil
}

// directory writes a directory and all below it; it gets the next free cluster.
func (b *builder) directory(n *node, parent uint32, label string) error {
	entries := newEntries(b.time)
	size := entries.sizeOf(n, label)
	self, err := b.allocate(max(size, 1))
	if err != nil {
		return err
	}
	if label != "" {
		entries.label(label)
	} else {
		if parent == rootCluster {
			parent = 0 // the root is called so from below
		}
		entries.dots(self, parent)
	}
	for _, c := range n.children {
		first := uint32(0)
		switch {
		case c.dir:
			first = b.next
			err = b.directory(c, self, "")
		case len(c.data) > 0:
			if first, err = b.allocate(len(c.data)); err == nil {
				_, err = b.w.WriteAt(c.data, b.offset(first))
			}
		}
		if err == nil {
			err = entries.add(c, first)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	_, err = b.w.WriteAt(entries.data, b.offset(self))
	return err
}

func (b *builder) writeTables() error {
	table := make([]byte, 8, 8+4*len(b.table))
	le := binary.LittleEndian
	le.PutUint32(table, 0x0fffff00|media)
	le.PutUint32(table[4:], endOfChain)
	for _, link := range b.table {
		table = le.AppendUint32(table, link)
	}
	for i := range copies {
		if _, err := b.w.WriteAt(table, (reserved+int64(i)*int64(b.perTable))*sectorSize); err != nil {
			return fmt.Errorf("write the allocation table: %w", err)
		}
	}
	return nil
}

func (b *builder) writeBoot(v *Volume) error {
	boot, info := make([]byte, sectorSize), make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(boot, "\xeb\x58\x90BOTHY   ")
	le.PutUint16(boot[11:], sectorSize)
	boot[13] = byte(b.perCluster)
	le.PutUint16(boot[14:], reserved)
	boot[16] = copies
	boot[21] = media
	le.PutUint16(boot[24:], 63)
	le.PutUint16(boot[26:], 255)
	le.PutUint32(boot[32:], b.sectors)
	le.PutUint32(boot[36:], b.perTable)
	le.PutUint32(boot[44:], rootCluster)
	le.PutUint16(boot[48:], infoSector)
	le.PutUint16(boot[50:], backupBoot)
	boot[64], boot[66] = 0x80, 0x29
	le.PutUint32(boot[67:], v.ID)
	copy(boot[71:], fmt.Sprintf("%-11s", v.Label))
	copy(boot[82:], "FAT32   ")
	boot[510], boot[511] = 0x55, 0xaa

	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], b.clusters-(b.next-rootCluster))
	le.PutUint32(info[492:], b.next)
	info[510], info[511] = 0x55, 0xaa
	for _, at := range []int64{0, backupBoot} {
		if _, err := b.w.WriteAt(append(slices.Clone(boot), info...), at*sectorSize); err != nil {
			return fmt.Errorf("write the boot sector: %w", err)
		}
	}
	return nil
}
