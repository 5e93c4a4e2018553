package mirror

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"

	"github.com/bothy-os/bothy/internal/durable"
)

// staged is a pack on disk whose objects have all been computed, but which is
// not part of the mirror yet.
type staged struct {
	file    string // of the pack
	index   string
	sum     plumbing.Hash
	objects []indexed // sorted by id
	links   *links
}

// discard removes what admit did not take.
func (s *staged) discard() {
	if s != nil {
		_ = os.Remove(s.file)
		_ = os.Remove(s.index)
	}
}

func (s *staged) has(id plumbing.Hash) bool {
	i := sort.Search(len(s.objects), func(i int) bool { return bytes.Compare(s.objects[i].id[:], id[:]) >= 0 })
	return i < len(s.objects) && s.objects[i].id == id
}

// stage reads a pack from a stream: it is written to a file within the limits
// while every object is inflated and its id computed, deltas are resolved, and
// file and index are flushed to disk. It returns nil for a pack without
// objects. bare allows files to be missing.
func (m *Mirror) stage(ctx context.Context, r io.Reader, bare bool) (_ *staged, err error) {
	file, err := os.CreateTemp(m.packDir(), "tmp_pack_*")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s := &staged{file: file.Name(), index: file.Name() + ".idx", links: newLinks(bare)}
	defer func() {
		if err != nil {
			s.discard()
		}
	}()
	in := &intake{in: newTap(r, file, m.limits.Fetch), limits: m.limits, links: s.links}
	if err := in.read(ctx); err != nil {
		return nil, err
	}
	if len(in.entries) == 0 {
		s.discard()
		return nil, nil
	}
	set := m.packs()
	rs := &resolver{
		pack: &pack{file: file, size: in.in.written}, limits: m.limits, entries: in.entries, links: s.links,
		outside: func(id plumbing.Hash) (plumbing.ObjectType, []byte, error) { return set.object(id, m.limits.Object) },
	}
	if err := rs.resolve(ctx); err != nil {
		return nil, err
	}
	s.sum = in.sum
	for _, e := range in.entries {
		s.objects = append(s.objects, indexed{id: e.id, offset: e.offset, crc: e.crc})
	}
	if len(rs.borrowed) > 0 {
		if err := s.lend(file, in.in.written, rs.borrowed, rs.outside); err != nil {
			return nil, err
		}
	}
	sortByID(s.objects)
	for i := 1; i < len(s.objects); i++ {
		if s.objects[i].id == s.objects[i-1].id {
			return nil, fmt.Errorf("read pack: object %s is in it twice", short(s.objects[i].id.String()))
		}
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	return s, s.writeIndex()
}

func (s *staged) writeIndex() error {
	f, err := os.OpenFile(s.index, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeIndex(f, s.objects, s.sum); err != nil {
		return err
	}
	return f.Sync()
}

// lend adds the bases that a thin pack lacks to its end, so that the pack can
// be read without others.
func (s *staged) lend(file *os.File, size int64, ids []plumbing.Hash, get func(plumbing.Hash) (plumbing.ObjectType, []byte, error)) error {
	end := size - idLength
	if err := file.Truncate(end); err != nil {
		return err
	}
	if _, err := file.Seek(end, io.SeekStart); err != nil {
		return err
	}
	for _, id := range ids {
		kind, data, err := get(id)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := deflate(&b, kind, data); err != nil {
			return err
		}
		s.objects = append(s.objects, indexed{id: id, offset: end, crc: crc32.ChecksumIEEE(b.Bytes())})
		if _, err := file.Write(b.Bytes()); err != nil {
			return err
		}
		end += int64(b.Len())
	}
	var count [4]byte
	binary.BigEndian.PutUint32(count[:], uint32(len(s.objects)))
	if _, err := file.WriteAt(count[:], 8); err != nil {
		return err
	}
	digest := hash.New(hash.CryptoType)
	if _, err := io.Copy(digest, io.NewSectionReader(file, 0, end)); err != nil {
		return err
	}
	copy(s.sum[:], digest.Sum(nil))
	_, err := file.Write(s.sum[:])
	return err
}

// deflate writes an object as an entry of a pack.
func deflate(w io.Writer, kind plumbing.ObjectType, data []byte) error {
	if _, err := w.Write(entryHead(kind, int64(len(data)))); err != nil {
		return err
	}
	z := zlib.NewWriter(w)
	if _, err := z.Write(data); err != nil {
		return err
	}
	return z.Close()
}

// entryHead encodes type and size of an entry.
func entryHead(kind plumbing.ObjectType, size int64) []byte {
	b := []byte{byte(kind)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}

// incomplete says that objects are missing which a pack refers to.
type incomplete struct{ id plumbing.Hash }

func (e *incomplete) Error() string {
	return fmt.Sprintf("it did not send object %s, which what it sent refers to", short(e.id.String()))
}

// admit makes staged packs part of the mirror, all or none: only if everything
// that their objects refer to is in one of them or in the mirror. So whatever
// is in the mirror is there with all that it needs, and no reader comes upon a
// gap that a source left. tip must be there afterwards.
func (m *Mirror) admit(tip string, parts ...*staged) error {
	if err := m.checkComplete(plumbing.NewHash(tip), parts); err != nil {
		return err
	}
	var added packSet
	for _, s := range parts {
		if s == nil {
			continue
		}
		p, err := m.publish(s)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(m.packs(), func(o *pack) bool { return o.base == p.base }) {
			added = append(added, p)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set = append(m.set[:len(m.set):len(m.set)], added...)
	return nil
}

// publish gives a staged pack its name, durably, and opens it.
func (m *Mirror) publish(s *staged) (*pack, error) {
	base := filepath.Join(m.packDir(), "pack-"+s.sum.String())
	// A pack counts once its index has its name, which is therefore last. The
	// very same pack may be there already.
	if err := os.Rename(s.file, base+".pack"); err != nil {
		return nil, err
	}
	if err := os.Rename(s.index, base+".idx"); err != nil {
		return nil, err
	}
	if err := durable.SyncDir(m.packDir()); err != nil {
		return nil, err
	}
	return openPack(base, m.cache)
}

func (m *Mirror) checkComplete(tip plumbing.Hash, parts []*staged) error {
	set := m.packs()
	there := func(id plumbing.Hash) (bool, error) {
		for _, s := range parts {
			if s != nil && s.has(id) {
				return true, nil
			}
		}
		p, _, err := set.locate(id)
		return p != nil, err
	}
	if ok, err := there(tip); err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("it announced commit %s but did not send it", short(tip.String()))
		}
		return err
	}
	for _, s := range parts {
		if s == nil {
			continue
		}
		for _, ids := range []map[plumbing.Hash]struct{}{s.links.nodes, s.links.files} {
			for id := range ids {
				if ok, err := there(id); err != nil {
					return err
				} else if !ok {
					return &incomplete{id}
				}
			}
		}
	}
	return nil
}
