package mirror

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/bothy-os/bothy/internal/durable"
)

// ingest takes a pack into the mirror: it is written to a file within the
// limit, looked through for objects that would grow beyond theirs, indexed
// (which computes every object's id), and flushed to disk.
func (m *Mirror) ingest(r io.Reader) error {
	file, err := os.CreateTemp(m.dir, "incoming-*.pack")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()

	n, err := io.Copy(file, io.LimitReader(r, m.limits.Fetch+1))
	if err != nil {
		return fmt.Errorf("receive pack: %w", err)
	}
	if n > m.limits.Fetch {
		return fmt.Errorf("%w: more than %d MiB to fetch", ErrTooLarge, m.limits.Fetch>>20)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	objects, err := m.checkSizes(file)
	if err != nil {
		return err
	}
	if objects == 0 {
		return nil
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := packfile.UpdateObjectStorage(m.open(), file); err != nil {
		return fmt.Errorf("index pack: %w", err)
	}
	return m.syncPacks()
}

// checkSizes adds up the sizes of the objects in a pack, those that deltas
// grow into included.
func (m *Mirror) checkSizes(r io.Reader) (uint32, error) {
	s := packfile.NewScanner(r)
	_, count, err := s.Header()
	if err != nil {
		if errors.Is(err, packfile.ErrEmptyPackfile) {
			return 0, nil
		}
		return 0, fmt.Errorf("read pack: %w", err)
	}
	var total int64
	for range count {
		header, err := s.NextObjectHeader()
		if err != nil {
			return 0, fmt.Errorf("read pack: %w", err)
		}
		if err := m.checkSize(header.Length); err != nil {
			return 0, err
		}
		var delta prefix
		if _, _, err := s.NextObject(&delta); err != nil {
			return 0, fmt.Errorf("read pack: %w", err)
		}
		size := header.Length
		if header.Type == plumbing.OFSDeltaObject || header.Type == plumbing.REFDeltaObject {
			if size, err = delta.targetSize(); err != nil {
				return 0, err
			}
			if err := m.checkSize(size); err != nil {
				return 0, err
			}
		}
		if total += size; total > m.limits.Objects {
			return 0, fmt.Errorf("%w: the objects to fetch are more than %d MiB", ErrTooLarge, m.limits.Objects>>20)
		}
	}
	return count, nil
}

func (m *Mirror) checkSize(n int64) error {
	if n > m.limits.Object {
		return fmt.Errorf("%w: an object has %d bytes, the limit is %d", ErrTooLarge, n, m.limits.Object)
	}
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

// syncPacks flushes new packs, which go-git does not, before a branch refers
// to them.
func (m *Mirror) syncPacks() error {
	dir := filepath.Join(m.dir, "objects", "pack")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return fmt.Errorf("flush pack: %w", err)
		}
	}
	return durable.SyncDir(dir)
}
