package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 256 << 20

// ReadFile reads a file of a FAT32 file system by its short names, whose case does not
// count. A file that there is not is fs.ErrNotExist.
func ReadFile(r io.ReaderAt, path string) ([]byte, error) {
	boot := make([]byte, sectorSize)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("read the boot sector: %w", err)
	}
	le := binary.LittleEndian
	if string(boot[82:87]) != "FAT32" || le.Uint16(boot[11:]) != sectorSize || boot[13] == 0 {
		return nil, errors.New("no FAT32 file system")
	}
	v := reader{
		r: r, clusterSize: int64(boot[13]) * sectorSize, tables: int64(le.Uint16(boot[14:])) * sectorSize,
		sectors: int64(le.Uint32(boot[32:])),
	}
	v.data = v.tables + int64(boot[16])*int64(le.Uint32(boot[36:]))*sectorSize
	first, size := le.Uint32(boot[44:]), int64(-1)
	for _, name := range strings.Split(path, "/") {
		dir, err := v.chain(first, -1)
		if err != nil {
			return nil, fmt.Errorf("read a directory of %s: %w", path, err)
		}
		if first, size = lookup(dir, strings.ToUpper(name)); first == 0 {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
	}
	data, err := v.chain(first, size)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

type reader struct {
	r io.ReaderAt
	// clusterSize, tables and data are sizes and places in bytes.
	clusterSize, tables, data int64
	sectors                   int64
}

// chain reads the clusters that begin with one: all, or as many bytes as size says.
func (v *reader) chain(cluster uint32, size int64) ([]byte, error) {
	if size > maxFile {
		return nil, fmt.Errorf("%d bytes are more than a boot file has", size)
	}
	var out []byte
	for cluster >= rootCluster && cluster < 0x0ffffff8 {
		at := v.data + int64(cluster-rootCluster)*v.clusterSize
		if at+v.clusterSize > v.sectors*sectorSize || len(out) > maxFile {
			return nil, fmt.Errorf("cluster %d is beyond the end, or goes in a circle", cluster)
		}
		part := make([]byte, v.clusterSize)
		if _, err := v.r.ReadAt(part, at); err != nil {
			return nil, err
		}
		out = append(out, part...)
		link := make([]byte, 4)
		if _, err := v.r.ReadAt(link, v.tables+4*int64(cluster)); err != nil {
			return nil, err
		}
		cluster = binary.LittleEndian.Uint32(link) & 0x0fffffff
	}
	if size < 0 {
		return out, nil
	}
	if int64(len(out)) < size {
		return nil, io.ErrUnexpectedEOF
	}
	return out[:size], nil
}

// lookup finds an entry of a directory: its first cluster, 0 if there is none, and its size,
// -1 for a directory.
func lookup(dir []byte, name string) (first uint32, size int64) {
	base, ending, _ := strings.Cut(name, ".")
	want := fmt.Sprintf("%-8s%-3s", base, ending)
	le := binary.LittleEndian
	for ; len(dir) >= entrySize && dir[0] != 0; dir = dir[entrySize:] {
		if dir[11]&attrLong == attrLong || dir[11]&attrLabel != 0 || string(dir[:11]) != want {
			continue
		}
		first = uint32(le.Uint16(dir[20:]))<<16 | uint32(le.Uint16(dir[26:]))
		if dir[11]&attrDir != 0 {
			return first, -1
		}
		return first, int64(le.Uint32(dir[28:]))
	}
	return 0, 0
}
