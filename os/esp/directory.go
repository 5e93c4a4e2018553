package esp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	attrLabel = 0x08
	attrDir   = 0x10
	attrFile  = 0x20
	attrLong  = 0x0f
	entryFree = 0xe5
	maxDepth  = 16
	longUnits = 13
)

// entry is a file or a directory as its directory has it.
type entry struct {
	// short is its name of eight and three characters, long the other, "" without one.
	short, long string
	dir         bool
	first, size uint32
	// at is where its 32 bytes are in the directory; from is where the parts of its long
	// name begin.
	at, from int
}

// directory is the content of one.
type directory struct {
	data     []byte
	clusters []uint32
	entries  []*entry
}

func (v *Volume) directory(first uint32) (*directory, error) {
	data, clusters, err := v.content(first)
	if err != nil {
		return nil, err
	}
	d := &directory{data: data, clusters: clusters}
	var long []uint16
	from := -1
	for at := 0; at+entrySize <= len(data) && data[at] != 0; at += entrySize {
		raw := data[at : at+entrySize]
		switch attributes := raw[11]; {
		case raw[0] == entryFree:
			long, from = nil, -1
		case attributes == attrLong:
			if from < 0 {
				from = at
			}
			long = append(longPart(raw), long...)
		case attributes&attrLabel != 0 || raw[0] == '.':
			long, from = nil, -1
		default:
			e := parseEntry(raw)
			e.at, e.from, e.long = at, at, longName(long)
			if from >= 0 {
				e.from = from
			}
			d.entries = append(d.entries, e)
			long, from = nil, -1
		}
	}
	return d, nil
}

func parseEntry(raw []byte) *entry {
	le := binary.LittleEndian
	short := strings.TrimRight(string(raw[:8]), " ")
	if ext := strings.TrimRight(string(raw[8:11]), " "); ext != "" {
		short += "." + ext
	}
	return &entry{
		short: short, dir: raw[11]&attrDir != 0,
		first: uint32(le.Uint16(raw[20:]))<<16 | uint32(le.Uint16(raw[26:])), size: le.Uint32(raw[28:]),
	}
}

func longPart(raw []byte) []uint16 {
	out := make([]uint16, 0, longUnits)
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		out = append(out, binary.LittleEndian.Uint16(raw[at:]))
	}
	return out
}

func longName(units []uint16) string {
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units))
}

// lookup returns the entry of a name; nil if there is none.
func (d *directory) lookup(name string) *entry {
	for _, e := range d.entries {
		if strings.EqualFold(e.short, name) || e.long != "" && strings.EqualFold(e.long, name) {
			return e
		}
	}
	return nil
}

// vacant returns where a new entry can be; -1 if the directory is full.
func (d *directory) vacant() int {
	for at := 0; at+entrySize <= len(d.data); at += entrySize {
		if d.data[at] == 0 || d.data[at] == entryFree {
			return at
		}
	}
	return -1
}

// pack fills a name of eight and three characters with blanks.
func pack(name string) (string, error) {
	base, ext, dotted := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || dotted && ext == "" || strings.Trim(base+ext, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return "", fmt.Errorf("%q is no name of eight and three plain capitals", name)
	}
	return fmt.Sprintf("%-8s%-3s", base, ext), nil
}

// encode makes the 32 bytes of an entry. It has no time: the clock may be wrong, and nobody
// asks.
func encode(packed string, attributes byte, first, size uint32) []byte {
	le := binary.LittleEndian
	raw := make([]byte, entrySize)
	copy(raw, packed)
	raw[11] = attributes
	const firstDay = 1<<5 | 1 // the first of January 1980, the least there is
	for _, at := range []int{16, 18, 24} {
		le.PutUint16(raw[at:], firstDay)
	}
	le.PutUint16(raw[20:], uint16(first>>16))
	le.PutUint16(raw[26:], uint16(first))
	le.PutUint32(raw[28:], size)
	return raw
}

// reachable marks the clusters that belong to something.
func (v *Volume) reachable() ([]bool, error) {
	used := make([]bool, v.clusters+2)
	mark := func(first uint32) error {
		clusters, err := v.chain(first)
		if err != nil {
			return err
		}
		for _, c := range clusters {
			if used[c] {
				return fmt.Errorf("%w: cluster %d belongs to two files", ErrDamaged, c)
			}
			used[c] = true
		}
		return nil
	}
	var walk func(first uint32, depth int) error
	walk = func(first uint32, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%w: directories are nested more than %d deep", ErrDamaged, maxDepth)
		}
		if err := mark(first); err != nil {
			return err
		}
		d, err := v.directory(first)
		if err != nil {
			return err
		}
		for _, e := range d.entries {
			switch {
			case e.dir:
				err = walk(e.first, depth+1)
			case e.first != 0:
				err = mark(e.first)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return used, walk(v.root, 0)
}
