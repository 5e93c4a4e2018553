package mirror

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// maxObjects bounds the objects of one pack, each of which costs some hundred
// bytes of memory while the pack is taken in.
const maxObjects = 2_000_000

// entry is an object of a pack that is being taken in.
type entry struct {
	id     plumbing.Hash // zero until it is known
	base   plumbing.Hash // of a reference delta
	offset int64
	parent int64 // offset of an offset delta's base
	crc    uint32
	kind   plumbing.ObjectType
}

// intake reads a pack from a stream into a file. What it reads may be anything:
// nothing is believed before it was computed.
type intake struct {
	in      *tap
	limits  Limits
	entries []entry
	links   *links
	sum     plumbing.Hash
	total   int64
	zlib    io.ReadCloser
}

// read takes in the whole pack. Objects that are deltas still have no id.
func (t *intake) read(ctx context.Context) error {
	count, err := t.head()
	if err != nil {
		return err
	}
	for i := range count {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := t.object(); err != nil {
			return t.explain(fmt.Errorf("object %d of %d: %w", i+1, count, err))
		}
	}
	if err := t.in.flush(); err != nil {
		return err
	}
	copy(t.sum[:], t.in.digest.Sum(nil))
	var trailer plumbing.Hash
	if _, err := io.ReadFull(t.in, trailer[:]); err != nil {
		return t.explain(fmt.Errorf("checksum: %w", noEOF(err)))
	}
	if trailer != t.sum {
		return errors.New("read pack: its checksum is wrong: it was damaged on its way, or is not what it says")
	}
	return t.in.flush()
}

func (t *intake) explain(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	if t.in.failed != nil && !errors.Is(t.in.failed, io.EOF) {
		err = t.in.failed
	}
	return fmt.Errorf("read pack: %w", err)
}

// head reads the pack's head and returns the number of objects.
func (t *intake) head() (uint32, error) {
	var b [12]byte
	if _, err := io.ReadFull(t.in, b[:]); err != nil {
		return 0, t.explain(noEOF(err))
	}
	if version := binary.BigEndian.Uint32(b[4:]); !bytes.Equal(b[:4], []byte("PACK")) || version != 2 && version != 3 {
		return 0, errors.New("read pack: the answer is not a pack")
	}
	count := binary.BigEndian.Uint32(b[8:])
	if count > maxObjects {
		return 0, fmt.Errorf("%w: %d objects at once, the limit is %d", ErrTooLarge, count, maxObjects)
	}
	return count, nil
}

func (t *intake) object() error {
	if err := t.in.flush(); err != nil {
		return err
	}
	t.in.crc = 0
	start := t.in.offset()
	h, err := readHeader(t.in, start)
	if err != nil {
		return err
	}
	if err := t.limits.checkSize(h.size); err != nil {
		return err
	}
	if t.zlib == nil {
		t.zlib, err = zlib.NewReader(t.in)
	} else {
		err = t.zlib.(zlib.Resetter).Reset(t.in, nil)
	}
	if err != nil {
		return noEOF(err)
	}
	e := entry{offset: start, kind: h.kind, base: h.baseID}
	size := h.size
	switch h.kind {
	case plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
		e.parent = start - h.back
		size, err = t.delta(h.size)
	case plumbing.BlobObject:
		e.id, err = t.blob(h.size)
	default:
		e.id, err = t.node(h.kind, h.size)
	}
	if err != nil {
		return err
	}
	if err := t.limits.checkSize(size); err != nil {
		return err
	}
	if t.total += size; t.total > t.limits.Objects {
		return fmt.Errorf("%w: the objects to fetch are more than %d MiB", ErrTooLarge, t.limits.Objects>>20)
	}
	if err := t.in.flush(); err != nil {
		return err
	}
	e.crc = t.in.crc
	t.entries = append(t.entries, e)
	return nil
}

// delta skips a delta and returns the size of the object it makes.
func (t *intake) delta(size int64) (int64, error) {
	var head prefix
	if err := copyExactly(&head, t.zlib, size); err != nil {
		return 0, err
	}
	return head.targetSize()
}

func (t *intake) blob(size int64) (plumbing.Hash, error) {
	h := plumbing.NewHasher(plumbing.BlobObject, size)
	if err := copyExactly(h, t.zlib, size); err != nil {
		return plumbing.ZeroHash, err
	}
	return h.Sum(), nil
}

// node reads an object that refers to others.
func (t *intake) node(kind plumbing.ObjectType, size int64) (plumbing.Hash, error) {
	data := make([]byte, size)
	if err := readExactly(t.zlib, data); err != nil {
		return plumbing.ZeroHash, err
	}
	return plumbing.ComputeHash(kind, data), t.links.add(kind, data)
}

// copyExactly copies size bytes, after which r must end.
func copyExactly(w io.Writer, r io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return err
	case n < size:
		return io.ErrUnexpectedEOF
	case n > size:
		return errors.New("an object is longer than it says")
	}
	return nil
}

// tap reads a stream and writes what was consumed of it, not what was read
// ahead, to a file and into checksums.
type tap struct {
	r      io.Reader
	out    *os.File
	limit  int64
	digest hash.Hash
	crc    uint32 // of what was consumed since somebody set it to zero

	buffer     []byte
	begin, end int // what is buffered and not consumed
	flushed    int // up to where the buffer was written out
	written    int64
	failed     error
}

func newTap(r io.Reader, out *os.File, limit int64) *tap {
	return &tap{r: r, out: out, limit: limit, digest: hash.New(hash.CryptoType), buffer: make([]byte, 64<<10)}
}

// offset is how many bytes were consumed.
func (t *tap) offset() int64 { return t.written + int64(t.begin-t.flushed) }

// ReadByte keeps zlib from reading ahead.
func (t *tap) ReadByte() (byte, error) {
	if t.begin == t.end {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	b := t.buffer[t.begin]
	t.begin++
	return b, nil
}

func (t *tap) Read(p []byte) (int, error) {
	if t.begin == t.end {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.buffer[t.begin:t.end])
	t.begin += n
	return n, nil
}

func (t *tap) fill() error {
	if t.failed != nil {
		return t.failed
	}
	if err := t.flush(); err != nil {
		return err
	}
	t.begin, t.end, t.flushed = 0, 0, 0
	for range 100 {
		n, err := t.r.Read(t.buffer)
		t.failed = err // for the next time, if something was read
		if n > 0 {
			t.end = n
			return nil
		}
		if err != nil {
			return err
		}
	}
	t.failed = io.ErrNoProgress
	return t.failed
}

// flush writes out what was consumed.
func (t *tap) flush() error {
	part := t.buffer[t.flushed:t.begin]
	if len(part) == 0 {
		return nil
	}
	if t.written+int64(len(part)) > t.limit {
		t.failed = fmt.Errorf("%w: more than %d MiB to fetch", ErrTooLarge, t.limit>>20)
		return t.failed
	}
	if _, err := t.out.Write(part); err != nil {
		t.failed = err
		return err
	}
	t.digest.Write(part)
	t.crc = crc32.Update(t.crc, crc32.IEEETable, part)
	t.written += int64(len(part))
	t.flushed = t.begin
	return nil
}

// prefix keeps the first bytes written to it.
type prefix struct {
	head []byte
}

func (p *prefix) Write(b []byte) (int, error) {
	const enough = 2 * binary.MaxVarintLen64
	if room := enough - len(p.head); room > 0 {
		p.head = append(p.head, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// targetSize reads the second of the two sizes that a delta begins with.
func (p *prefix) targetSize() (int64, error) {
	r := bytes.NewReader(p.head)
	if _, err := binary.ReadUvarint(r); err != nil {
		return 0, fmt.Errorf("read delta: %w", err)
	}
	size, err := binary.ReadUvarint(r)
	if err != nil || size > 1<<62 {
		return 0, errors.New("read delta: invalid size")
	}
	return int64(size), nil
}
