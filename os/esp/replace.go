package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// ErrNoSpace says that a file does not fit.
var ErrNoSpace = errors.New("there is not enough room on the EFI system partition")

// Replace makes data the content of a file, which is made if there is none, with the
// directories above it. A file that has this content already is left alone. When it returns
// nil the new content survives a loss of power.
func (v *Volume) Replace(path string, data []byte) error {
	if old, err := v.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := v.replace(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (v *Volume) replace(path string, data []byte) error {
	parts := strings.Split(path, "/")
	dir, name := v.root, parts[len(parts)-1]
	for _, part := range parts[:len(parts)-1] {
		var err error
		if dir, err = v.subdirectory(dir, part); err != nil {
			return err
		}
	}
	if err := v.makeRoom(dir, name); err != nil {
		return err
	}
	first, err := v.put(data)
	if err != nil {
		return err
	}
	if err := v.point(dir, name, attrFile, first, uint32(len(data))); err != nil {
		return err
	}
	return v.collect()
}

// Remove removes a file; one that is not there is no error.
func (v *Volume) Remove(path string) error {
	if err := v.remove(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

func (v *Volume) remove(path string) error {
	dir := v.root
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		e, err := v.find(path[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		dir, path = e.first, path[i+1:]
	}
	d, err := v.directory(dir)
	if err != nil {
		return err
	}
	e := d.lookup(path)
	if e == nil {
		return nil
	}
	if e.dir {
		return errors.New("it is a directory")
	}
	// The entry itself first: parts of a long name alone mean nothing.
	for _, at := range slices.Backward(positions(e.from, e.at)) {
		d.data[at] = entryFree
		if err := v.writeSector(d, at); err != nil {
			return err
		}
	}
	if err := v.disk.Sync(); err != nil {
		return err
	}
	return v.collect()
}

func positions(from, to int) []int {
	var out []int
	for at := from; at <= to; at += entrySize {
		out = append(out, at)
	}
	return out
}

// put stores content in clusters that nothing uses, and returns the first; 0 for none.
// Nothing refers to them yet.
func (v *Volume) put(data []byte) (uint32, error) {
	if len(data) == 0 {
		return 0, nil
	}
	used, err := v.reachable()
	if err != nil {
		return 0, err
	}
	n := (len(data) + v.clusterSize() - 1) / v.clusterSize()
	clusters := v.vacant(used, n)
	if len(clusters) < n {
		return 0, fmt.Errorf("%w: %d KiB are free, %d KiB are needed", ErrNoSpace, len(clusters)*v.clusterSize()>>10, n*v.clusterSize()>>10)
	}
	padded := append(bytes.Clone(data), make([]byte, n*v.clusterSize()-len(data))...)
	err = v.runs(clusters, func(cluster uint32, from, to int) error {
		_, err := v.disk.WriteAt(padded[from:to], v.offset(cluster))
		return err
	})
	if err == nil {
		err = v.disk.Sync()
	}
	if err != nil {
		return 0, err
	}
	for i, c := range clusters {
		next := uint32(linkMask)
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		v.setLink(c, next)
	}
	return clusters[0], v.flush()
}

// vacant finds so many clusters, or as many as there are.
func (v *Volume) vacant(used []bool, n int) []uint32 {
	out := make([]uint32, 0, n)
	for c := uint32(2); c < v.clusters+2 && len(out) < n; c++ {
		if !used[c] && v.link(c) != badCluster {
			out = append(out, c)
		}
	}
	return out
}

// flush brings the table to the disk, every copy of it.
func (v *Volume) flush() error {
	if len(v.dirty) == 0 {
		return nil
	}
	sectors := make([]uint32, 0, len(v.dirty))
	for s := range v.dirty {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for i := range v.copies {
		for _, s := range sectors {
			at := (int64(v.reserved) + int64(i)*int64(v.perTable) + int64(s)) * sectorSize
			if _, err := v.disk.WriteAt(v.table[s*sectorSize:][:sectorSize], at); err != nil {
				return fmt.Errorf("write the allocation table: %w", err)
			}
		}
	}
	clear(v.dirty)
	return v.disk.Sync()
}

// makeRoom makes sure that a directory has a place for the entry of a file, before there is
// content that nothing else refers to.
func (v *Volume) makeRoom(dir uint32, name string) error {
	d, err := v.directory(dir)
	if err != nil {
		return err
	}
	if e := d.lookup(name); e != nil {
		if e.dir {
			return fmt.Errorf("%s is a directory", name)
		}
		return nil
	}
	if _, err := pack(name); err != nil || d.vacant() >= 0 {
		return err
	}
	return v.extend(d)
}

// point makes the entry of a name refer to content. It is the one write that counts.
func (v *Volume) point(dir uint32, name string, attributes byte, first, size uint32) error {
	d, err := v.directory(dir)
	if err != nil {
		return err
	}
	var at int
	if e := d.lookup(name); e != nil {
		at = e.at
		le, raw := binary.LittleEndian, d.data[at:at+entrySize]
		le.PutUint16(raw[20:], uint16(first>>16))
		le.PutUint16(raw[26:], uint16(first))
		le.PutUint32(raw[28:], size)
	} else {
		packed, err := pack(name)
		if err != nil {
			return err
		}
		at = d.vacant()
		copy(d.data[at:], encode(packed, attributes, first, size))
	}
	if err := v.writeSector(d, at); err != nil {
		return err
	}
	return v.disk.Sync()
}

// extend gives a directory another cluster. Its end in the table is written before the link
// to it.
func (v *Volume) extend(d *directory) error {
	next, err := v.put(make([]byte, v.clusterSize()))
	if err != nil {
		return err
	}
	v.setLink(d.clusters[len(d.clusters)-1], next)
	return v.flush()
}

// writeSector writes the sector of a directory with a position.
func (v *Volume) writeSector(d *directory, at int) error {
	begin := at / sectorSize * sectorSize
	cluster := d.clusters[begin/v.clusterSize()]
	_, err := v.disk.WriteAt(d.data[begin:begin+sectorSize], v.offset(cluster)+int64(begin%v.clusterSize()))
	return err
}

// subdirectory returns a directory, made if it is missing.
func (v *Volume) subdirectory(parent uint32, name string) (uint32, error) {
	d, err := v.directory(parent)
	if err != nil {
		return 0, err
	}
	if e := d.lookup(name); e != nil {
		if !e.dir {
			return 0, fmt.Errorf("%s is no directory", name)
		}
		return e.first, nil
	}
	if err := v.makeRoom(parent, name); err != nil {
		return 0, err
	}
	up := parent
	if parent == v.root {
		up = 0 // the root is called so from below
	}
	content := make([]byte, v.clusterSize())
	copy(content[entrySize:], encode(fmt.Sprintf("%-11s", ".."), attrDir, up, 0))
	self, err := v.place(func(self uint32) []byte {
		copy(content, encode(fmt.Sprintf("%-11s", "."), attrDir, self, 0))
		return content
	})
	if err != nil {
		return 0, err
	}
	return self, v.point(parent, name, attrDir, self, 0)
}

// place is put for content of one cluster that names the cluster.
func (v *Volume) place(content func(cluster uint32) []byte) (uint32, error) {
	used, err := v.reachable()
	if err != nil {
		return 0, err
	}
	free := v.vacant(used, 1)
	if len(free) == 0 {
		return 0, ErrNoSpace
	}
	return v.put(content(free[0])) // takes the same one
}

// collect gives free what nothing refers to: what was replaced, and what a loss of power has
// left.
func (v *Volume) collect() error {
	used, err := v.reachable()
	if err != nil {
		return err
	}
	for c := uint32(2); c < v.clusters+2; c++ {
		if !used[c] && v.link(c) != freeCluster && v.link(c) != badCluster {
			v.setLink(c, freeCluster)
		}
	}
	if err := v.flush(); err != nil {
		return err
	}
	return v.writeInfo()
}

// writeInfo corrects the number of free clusters, a hint that saves others to count.
func (v *Volume) writeInfo() error {
	sector := make([]byte, sectorSize)
	if v.info == 0 || v.info >= v.reserved {
		return nil
	}
	at := int64(v.info) * sectorSize
	if _, err := v.disk.ReadAt(sector, at); err != nil || string(sector[:4]) != "RRaA" {
		return err
	}
	free := uint32(0)
	for c := uint32(2); c < v.clusters+2; c++ {
		if v.link(c) == freeCluster {
			free++
		}
	}
	le := binary.LittleEndian
	if le.Uint32(sector[488:]) == free {
		return nil
	}
	le.PutUint32(sector[488:], free)
	if _, err := v.disk.WriteAt(sector, at); err != nil {
		return err
	}
	return v.disk.Sync()
}
