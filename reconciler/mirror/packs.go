package mirror

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// maxChain bounds the length of a chain of deltas; git itself writes at most
// 4095.
const maxChain = 8192

// pack is one pack file. It stays readable after it was removed from the
// directory, until nobody refers to it any more.
type pack struct {
	base  string // path without .pack or .idx
	file  *os.File
	size  int64
	index *index
	cache *bases
}

// openPacks opens every complete pack in dir, in the order of their names.
func openPacks(dir string, cache *bases) ([]*pack, error) {
	names, err := filepath.Glob(filepath.Join(dir, "pack-*.idx"))
	if err != nil {
		return nil, err
	}
	var out []*pack
	for _, name := range names {
		p, err := openPack(strings.TrimSuffix(name, ".idx"), cache)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func openPack(base string, cache *bases) (*pack, error) {
	x, err := openIndex(base + ".idx")
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", filepath.Base(base), err)
	}
	f, err := os.Open(base + ".pack")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &pack{base: base, file: f, size: st.Size(), index: x, cache: cache}, nil
}

// header describes an entry of a pack.
type header struct {
	kind plumbing.ObjectType
	size int64 // of the object, or of the delta
	// back is how far before the entry the base of an offset delta begins,
	// baseID the base of a reference delta.
	back   int64
	baseID plumbing.Hash
	data   int64 // where the compressed data begins
}

// readHeader reads the head of an entry that begins at offset.
func readHeader(r io.ByteReader, offset int64) (header, error) {
	n := int64(0)
	next := func() (byte, error) {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		n++
		return b, err
	}
	b, err := next()
	if err != nil {
		return header{}, err
	}
	h := header{kind: plumbing.ObjectType(b >> 4 & 7), size: int64(b & 15)}
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = next(); err != nil {
			return h, err
		}
		if shift > 55 {
			return h, errors.New("an object's size is out of range")
		}
		h.size |= int64(b&0x7f) << shift
	}
	switch h.kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		if h.back, err = readBack(next); err != nil {
			return h, err
		}
		if h.back <= 0 || h.back >= offset {
			return h, errors.New("a delta's base is outside of the pack")
		}
	case plumbing.REFDeltaObject:
		for i := range h.baseID {
			if h.baseID[i], err = next(); err != nil {
				return h, err
			}
		}
	default:
		return h, fmt.Errorf("unknown type of object (%d)", h.kind)
	}
	h.data = offset + n
	return h, nil
}

// readBack reads the distance of an offset delta's base.
func readBack(next func() (byte, error)) (int64, error) {
	b, err := next()
	if err != nil {
		return 0, err
	}
	v := int64(b & 0x7f)
	for b&0x80 != 0 {
		if b, err = next(); err != nil {
			return 0, err
		}
		if v > 1<<47 {
			return 0, errors.New("a delta's base is out of range")
		}
		v = (v+1)<<7 | int64(b&0x7f)
	}
	return v, nil
}

// entry reads the head of the entry at offset and, if it is wanted, its
// content, which has the size that the head says.
func (p *pack) entry(offset int64, content bool, limit int64) (header, []byte, error) {
	const headSize = 64
	window := headSize
	if content {
		window = 4 << 10
	}
	r := bufio.NewReaderSize(io.NewSectionReader(p.file, offset, p.size-offset), window)
	h, err := readHeader(r, offset)
	if err != nil || !content {
		return h, nil, err
	}
	if h.size > limit {
		return h, nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, h.size, limit)
	}
	z, err := zlib.NewReader(r)
	if err != nil {
		return h, nil, err
	}
	data := make([]byte, h.size)
	if err := readExactly(z, data); err != nil {
		return h, nil, err
	}
	return h, data, nil
}

// readExactly fills data, after which r must end.
func readExactly(r io.Reader, data []byte) error {
	if _, err := io.ReadFull(r, data); err != nil {
		return noEOF(err)
	}
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n != 0 || !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("an object is longer than it says")
		}
		return err
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// packSet is the packs in which objects are looked for. It is not changed once
// it is in use.
type packSet []*pack

// locate returns the pack that holds an object and where; nil if none does.
func (s packSet) locate(id plumbing.Hash) (*pack, int64, error) {
	for i := len(s) - 1; i >= 0; i-- {
		offset, err := s[i].index.find(id)
		if err != nil {
			return nil, 0, err
		}
		if offset >= 0 {
			return s[i], offset, nil
		}
	}
	return nil, 0, nil
}

// object returns the type and the content of an object, whose hash was not
// looked at.
func (s packSet) object(id plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	p, offset, err := s.locate(id)
	if err != nil {
		return 0, nil, err
	}
	if p == nil {
		return 0, nil, ErrMissing
	}
	return s.at(p, offset, limit)
}

// at resolves the entry at an offset.
func (s packSet) at(p *pack, offset, limit int64) (plumbing.ObjectType, []byte, error) {
	type step struct {
		p      *pack
		offset int64
		delta  []byte
	}
	var chain []step
	var kind plumbing.ObjectType
	var data []byte
	for {
		if known, ok := p.cache.get(p, offset); ok {
			kind, data = known.kind, known.data
			break
		}
		h, content, err := p.entry(offset, true, limit)
		if err != nil {
			return 0, nil, damaged(err)
		}
		if h.kind != plumbing.OFSDeltaObject && h.kind != plumbing.REFDeltaObject {
			kind, data = h.kind, content
			p.cache.put(p, offset, kind, data)
			break
		}
		if chain = append(chain, step{p, offset, content}); len(chain) > maxChain {
			return 0, nil, fmt.Errorf("%w: a chain of more than %d deltas", ErrCorrupt, maxChain)
		}
		if h.kind == plumbing.OFSDeltaObject {
			offset -= h.back
			continue
		}
		if p, offset, err = s.locate(h.baseID); err != nil {
			return 0, nil, err
		}
		if p == nil {
			return 0, nil, fmt.Errorf("%w: the base of a delta, %s, is missing", ErrCorrupt, short(h.baseID.String()))
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		step := chain[i]
		size, err := (&prefix{head: step.delta}).targetSize()
		if err != nil {
			return 0, nil, damaged(err)
		}
		if size > limit {
			return 0, nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, limit)
		}
		if data, err = packfile.PatchDelta(data, step.delta); err != nil {
			return 0, nil, damaged(err)
		}
		step.p.cache.put(step.p, step.offset, kind, data)
	}
	return kind, data, nil
}

func damaged(err error) error {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// bases keeps the objects that were read last, since neighbours in history are
// deltas of each other. Two generations make a cheap approximation of the least
// recently used: what nobody asked for while the young one filled up is dropped.
type bases struct {
	mu         sync.Mutex
	limit      int
	size       int // of the young generation
	young, old map[position]cached
}

type position struct {
	p      *pack
	offset int64
}

type cached struct {
	kind plumbing.ObjectType
	data []byte
}

func newBases(limit int) *bases { return &bases{limit: limit / 2, young: map[position]cached{}} }

func (b *bases) get(p *pack, offset int64) (cached, bool) {
	if b == nil {
		return cached{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at := position{p, offset}
	if c, ok := b.young[at]; ok {
		return c, true
	}
	c, ok := b.old[at]
	if ok {
		b.add(at, c)
	}
	return c, ok
}

func (b *bases) put(p *pack, offset int64, kind plumbing.ObjectType, data []byte) {
	if b == nil || len(data) > b.limit/4 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(position{p, offset}, cached{kind, data})
}

func (b *bases) add(at position, c cached) {
	const overhead = 128
	if b.size += len(c.data) + overhead; b.size > b.limit {
		b.old, b.young, b.size = b.young, map[position]cached{}, len(c.data)+overhead
	}
	b.young[at] = c
}

// drop forgets everything.
func (b *bases) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.old, b.young, b.size = nil, map[position]cached{}, 0
}
