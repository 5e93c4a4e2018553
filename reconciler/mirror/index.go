package mirror

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// The layout of a pack index of version 2, see gitformat-pack(5).
const (
	idLength     = 20
	fanoutEnd    = 8 + 256*4
	largeOffsets = 1 << 31
	// indexInMemory is the size up to which an index is kept in memory; larger
	// ones are read where they are.
	indexInMemory = 256 << 10
)

// indexed is where an object of a pack begins, and the checksum of its
// compressed form.
type indexed struct {
	id     plumbing.Hash
	offset int64
	crc    uint32
}

// index finds objects in one pack.
type index struct {
	fanout [256]uint32
	table  io.ReaderAt
}

func openIndex(path string) (*index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	x := &index{table: f}
	if st.Size() <= indexInMemory {
		data, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		x.table = bytes.NewReader(data)
	}
	return x, x.readFanout(st.Size())
}

func (x *index) readFanout(size int64) error {
	var head [fanoutEnd]byte
	if _, err := x.table.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("%w: read pack index: %w", ErrCorrupt, err)
	}
	if !bytes.Equal(head[:8], []byte("\xfftOc\x00\x00\x00\x02")) {
		return fmt.Errorf("%w: not a pack index of version 2", ErrCorrupt)
	}
	for i := range x.fanout {
		x.fanout[i] = binary.BigEndian.Uint32(head[8+4*i:])
		if i > 0 && x.fanout[i] < x.fanout[i-1] {
			return fmt.Errorf("%w: pack index out of order", ErrCorrupt)
		}
	}
	if least := fanoutEnd + int64(x.count())*(idLength+8) + 2*idLength; size < least {
		return fmt.Errorf("%w: pack index of %d bytes, at least %d are needed", ErrCorrupt, size, least)
	}
	return nil
}

func (x *index) count() int { return int(x.fanout[255]) }

// find returns the offset of an object in the pack, or -1.
func (x *index) find(id plumbing.Hash) (int64, error) {
	low, high := 0, int(x.fanout[id[0]])
	if id[0] > 0 {
		low = int(x.fanout[id[0]-1])
	}
	var failed error
	var name plumbing.Hash
	i := low + sort.Search(high-low, func(i int) bool {
		if _, err := x.table.ReadAt(name[:], fanoutEnd+int64(low+i)*idLength); err != nil {
			failed = err
		}
		return bytes.Compare(name[:], id[:]) >= 0
	})
	if i < high && failed == nil {
		_, failed = x.table.ReadAt(name[:], fanoutEnd+int64(i)*idLength)
	}
	switch {
	case failed != nil:
		return -1, fmt.Errorf("%w: read pack index: %w", ErrCorrupt, failed)
	case i == high || name != id:
		return -1, nil
	}
	return x.offset(i)
}

// offset returns where the i-th object begins.
func (x *index) offset(i int) (int64, error) {
	n := int64(x.count())
	at := fanoutEnd + n*(idLength+4)
	var b [8]byte
	if _, err := x.table.ReadAt(b[:4], at+int64(i)*4); err != nil {
		return -1, fmt.Errorf("%w: read pack index: %w", ErrCorrupt, err)
	}
	v := binary.BigEndian.Uint32(b[:])
	if v < largeOffsets {
		return int64(v), nil
	}
	if _, err := x.table.ReadAt(b[:], at+n*4+int64(v-largeOffsets)*8); err != nil {
		return -1, fmt.Errorf("%w: read pack index: %w", ErrCorrupt, err)
	}
	return int64(binary.BigEndian.Uint64(b[:]) &^ (1 << 63)), nil
}

// all lists the objects in the order of their offsets.
func (x *index) all() ([]indexed, error) {
	n := x.count()
	out := make([]indexed, n)
	names := make([]byte, n*idLength)
	sums := make([]byte, n*4)
	if _, err := x.table.ReadAt(names, fanoutEnd); err != nil && n > 0 {
		return nil, fmt.Errorf("%w: read pack index: %w", ErrCorrupt, err)
	}
	if _, err := x.table.ReadAt(sums, fanoutEnd+int64(n)*idLength); err != nil && n > 0 {
		return nil, fmt.Errorf("%w: read pack index: %w", ErrCorrupt, err)
	}
	for i := range out {
		copy(out[i].id[:], names[i*idLength:])
		out[i].crc = binary.BigEndian.Uint32(sums[i*4:])
		var err error
		if out[i].offset, err = x.offset(i); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b indexed) int { return int(a.offset - b.offset) })
	return out, nil
}

func sortByID(objects []indexed) {
	slices.SortFunc(objects, func(a, b indexed) int { return bytes.Compare(a.id[:], b.id[:]) })
}

// writeIndex writes the index of a pack with the given checksum. The objects
// are sorted by it.
func writeIndex(w io.Writer, objects []indexed, sum plumbing.Hash) error {
	sortByID(objects)
	digest := hash.New(hash.CryptoType)
	out := bufio.NewWriterSize(io.MultiWriter(w, digest), 64<<10)
	out.WriteString("\xfftOc\x00\x00\x00\x02") //nolint:errcheck // bufio keeps the first error for Flush
	var number [8]byte
	put := func(v uint32) {
		binary.BigEndian.PutUint32(number[:], v)
		out.Write(number[:4]) //nolint:errcheck // see above
	}
	next := 0
	for b := range 256 {
		for next < len(objects) && int(objects[next].id[0]) <= b {
			next++
		}
		put(uint32(next))
	}
	for _, o := range objects {
		out.Write(o.id[:]) //nolint:errcheck // see above
	}
	for _, o := range objects {
		put(o.crc)
	}
	var large []int64
	for _, o := range objects {
		if o.offset < largeOffsets {
			put(uint32(o.offset))
			continue
		}
		put(uint32(largeOffsets + len(large)))
		large = append(large, o.offset)
	}
	for _, offset := range large {
		binary.BigEndian.PutUint64(number[:], uint64(offset))
		out.Write(number[:]) //nolint:errcheck // see above
	}
	out.Write(sum[:]) //nolint:errcheck // see above
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(digest.Sum(nil))
	return err
}
