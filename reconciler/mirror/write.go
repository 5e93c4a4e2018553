package mirror

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// packWriter writes objects of a packSet as a new pack. Compressed data is
// copied as it is, deltas included where their base goes along, so that little
// is computed and little memory is needed.
type packWriter struct {
	set    packSet
	limit  int64
	out    *bufio.Writer
	digest hash.Hash
	crc    uint32
	offset int64

	written map[plumbing.Hash]int64
	objects []indexed
}

// place is where an object that is to be written is stored.
type place struct {
	id     plumbing.Hash
	pack   int
	offset int64
}

// writePack writes the objects in the order in which they are stored, and
// returns the new pack's checksum and what its index must hold.
func (s packSet) writePack(ctx context.Context, w io.Writer, ids []plumbing.Hash, limit int64) (plumbing.Hash, []indexed, error) {
	places, err := s.places(ids)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	pw := newPackWriter(w, s, limit)
	if err := pw.begin(len(places)); err != nil {
		return plumbing.ZeroHash, nil, err
	}
	for len(places) > 0 {
		n := sort.Search(len(places), func(i int) bool { return places[i].pack != places[0].pack })
		if err := pw.fromPack(ctx, places[:n]); err != nil {
			return plumbing.ZeroHash, nil, err
		}
		places = places[n:]
	}
	sum, err := pw.end()
	return sum, pw.objects, err
}

func newPackWriter(w io.Writer, set packSet, limit int64) *packWriter {
	return &packWriter{
		set: set, limit: limit, digest: hash.New(hash.CryptoType), written: map[plumbing.Hash]int64{},
		out: bufio.NewWriterSize(w, 64<<10),
	}
}

func (w *packWriter) begin(objects int) error {
	_, err := w.Write(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(objects)))
	return err
}

// end writes the checksum and returns it.
func (w *packWriter) end() (sum plumbing.Hash, err error) {
	copy(sum[:], w.digest.Sum(nil))
	if _, err := w.out.Write(sum[:]); err != nil {
		return sum, err
	}
	return sum, w.out.Flush()
}

func (s packSet) places(ids []plumbing.Hash) ([]place, error) {
	out := make([]place, 0, len(ids))
	for _, id := range ids {
		p, offset, err := s.locate(id)
		if err != nil {
			return nil, err
		}
		if p == nil {
			return nil, fmt.Errorf("object %s: %w", short(id.String()), ErrMissing)
		}
		out = append(out, place{id: id, pack: slices.Index(s, p), offset: offset})
	}
	slices.SortFunc(out, func(a, b place) int {
		if a.pack != b.pack {
			return a.pack - b.pack
		}
		return int(a.offset - b.offset)
	})
	return slices.CompactFunc(out, func(a, b place) bool { return a.id == b.id }), nil
}

func (w *packWriter) Write(b []byte) (int, error) {
	w.digest.Write(b)
	w.crc = crc32.Update(w.crc, crc32.IEEETable, b)
	w.offset += int64(len(b))
	return w.out.Write(b)
}

// fromPack writes objects of one pack.
func (w *packWriter) fromPack(ctx context.Context, places []place) error {
	p := w.set[places[0].pack]
	all, err := p.index.all()
	if err != nil {
		return err
	}
	find := func(offset int64) int {
		return sort.Search(len(all), func(i int) bool { return all[i].offset >= offset })
	}
	for n, at := range places {
		if n%256 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i := find(at.offset)
		end := p.size - idLength
		if i+1 < len(all) {
			end = all[i+1].offset
		}
		h, _, err := p.entry(at.offset, false, 0)
		if err != nil {
			return damaged(err)
		}
		base := h.baseID
		if h.kind == plumbing.OFSDeltaObject {
			if j := find(at.offset - h.back); j < len(all) && all[j].offset == at.offset-h.back {
				base = all[j].id
			}
		}
		if err := w.object(p, at, h, base, end); err != nil {
			return err
		}
	}
	return nil
}

// object writes one entry: as it is stored, or in full if it is a delta whose
// base was not written before.
func (w *packWriter) object(p *pack, at place, h header, base plumbing.Hash, end int64) error {
	start := w.offset
	w.crc = 0
	err := func() error {
		var head []byte
		switch h.kind {
		case plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
			offset, ok := w.written[base]
			if !ok {
				return w.whole(p, at.offset)
			}
			head = append(entryHead(plumbing.OFSDeltaObject, h.size), backTo(start-offset)...)
		default:
			head = entryHead(h.kind, h.size)
		}
		if _, err := w.Write(head); err != nil {
			return err
		}
		_, err := io.Copy(w, io.NewSectionReader(p.file, h.data, end-h.data))
		return err
	}()
	w.written[at.id] = start
	w.objects = append(w.objects, indexed{id: at.id, offset: start, crc: w.crc})
	return err
}

func (w *packWriter) whole(p *pack, offset int64) error {
	kind, data, err := w.set.at(p, offset, w.limit)
	if err != nil {
		return err
	}
	return deflate(w, kind, data)
}

// backTo encodes the distance of an offset delta's base.
func backTo(distance int64) []byte {
	b := []byte{byte(distance & 0x7f)}
	for distance >>= 7; distance > 0; distance >>= 7 {
		distance--
		b = append(b, 0x80|byte(distance&0x7f))
	}
	slices.Reverse(b)
	return b
}
