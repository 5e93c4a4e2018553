package image

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The format is that of docs/interop/qcow2.txt in QEMU, version 3, without compression:
// what is in the disk is compressed already.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	perL2       = clusterSize / 8
	perRefBlock = clusterSize / 2 // counts of 16 bits
	copied      = 1 << 63
)

// convertToQCOW2 copies a sparse disk into a file that is as small as its content.
func convertToQCOW2(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	used, err := usedClusters(in, st.Size())
	if err != nil {
		return fmt.Errorf("find what is used of %s: %w", from, err)
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriterSize(out, 1<<20)
	q := newQCOW2(st.Size(), used)
	if _, err := w.Write(q.metadata()); err != nil {
		return err
	}
	buf := make([]byte, clusterSize)
	for _, c := range used {
		n, err := in.ReadAt(buf, int64(c)*clusterSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		clear(buf[n:])
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return w.Flush()
}

// qcow2 is where things are, in clusters: header, table of reference counts, their
// blocks, first-level table, second-level tables, data.
type qcow2 struct {
	size                                 int64
	used                                 []uint64
	l2Tables                             []uint64 // which of them there are
	refTable, refBlocks, l1, l1Size, all uint64
}

func newQCOW2(size int64, used []uint64) *qcow2 {
	q := &qcow2{size: size, used: used}
	for _, c := range used {
		if n := c / perL2; len(q.l2Tables) == 0 || q.l2Tables[len(q.l2Tables)-1] != n {
			q.l2Tables = append(q.l2Tables, n)
		}
	}
	clusters := uint64(size+clusterSize-1) / clusterSize
	q.l1Size = (clusters + perL2 - 1) / perL2
	q.l1 = (q.l1Size*8 + clusterSize - 1) / clusterSize
	rest := 2 + q.l1 + uint64(len(q.l2Tables)+len(used)) // with the header and the table of counts
	for q.refBlocks = 1; q.refBlocks*perRefBlock < rest+q.refBlocks; q.refBlocks++ {
	}
	q.refTable, q.all = 1, rest+q.refBlocks
	return q
}

func (q *qcow2) metadata() []byte {
	l1At := q.refTable + 1 + q.refBlocks
	l2At := l1At + q.l1
	dataAt := l2At + uint64(len(q.l2Tables))
	m := make([]byte, dataAt*clusterSize)
	be := binary.BigEndian
	copy(m, "QFI\xfb")
	be.PutUint32(m[4:], 3)
	be.PutUint32(m[20:], clusterBits)
	be.PutUint64(m[24:], uint64(q.size))
	be.PutUint32(m[36:], uint32(q.l1Size))
	be.PutUint64(m[40:], l1At*clusterSize)
	be.PutUint64(m[48:], q.refTable*clusterSize)
	be.PutUint32(m[56:], 1)
	be.PutUint32(m[96:], 4)    // counts of 1<<4 bits
	be.PutUint32(m[100:], 104) // length of the header
	for i := range q.refBlocks {
		be.PutUint64(m[q.refTable*clusterSize+i*8:], (q.refTable+1+i)*clusterSize)
	}
	counts := m[(q.refTable+1)*clusterSize:]
	for i := range q.all {
		be.PutUint16(counts[i*2:], 1)
	}
	where := map[uint64]uint64{}
	for i, n := range q.l2Tables {
		at := (l2At + uint64(i)) * clusterSize
		where[n] = at
		be.PutUint64(m[l1At*clusterSize+n*8:], at|copied)
	}
	for i, c := range q.used {
		be.PutUint64(m[where[c/perL2]+c%perL2*8:], (dataAt+uint64(i))*clusterSize|copied)
	}
	return m
}

// usedClusters lists those that hold more than zeros. Holes are not even read, and what a
// file system says of them does not change the result.
func usedClusters(f *os.File, size int64) ([]uint64, error) {
	var used []uint64
	buf := make([]byte, clusterSize)
	for at := int64(0); at < size; {
		from, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			return nil, err
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		for c := max(from, at) / clusterSize; c*clusterSize < to; c++ {
			n, err := f.ReadAt(buf, c*clusterSize)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			if len(bytes.Trim(buf[:n], "\x00")) > 0 {
				used = append(used, uint64(c))
			}
		}
		at = (to + clusterSize - 1) / clusterSize * clusterSize
	}
	return used, nil
}
