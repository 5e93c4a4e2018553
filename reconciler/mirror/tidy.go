package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// maxPacks is how many fetches may leave a pack before the small ones are
	// joined: looking for an object takes time in proportion to the packs.
	maxPacks = 50
	// slack is how much a mirror may grow beyond twice of what it needed before
	// what nobody needs is removed.
	slack = 32 << 20
	// neededFile remembers how large the mirror was when all in it was needed.
	neededFile = "needed"
)

// Tidy keeps the mirror small. It does nothing most of the time; now and then it
// joins the packs that small fetches left, and rarely it rewrites everything
// that keep and the fetched references need, dropping the rest: commits that
// were refused or pushed over. Reading goes on meanwhile, and a power cut leaves
// the packs from before, those from after, or both.
func (m *Mirror) Tidy(ctx context.Context, keep ...string) error {
	m.fetching.Lock()
	defer m.fetching.Unlock()
	return m.tidy(ctx, keep)
}

func (m *Mirror) tidy(ctx context.Context, keep []string) error {
	set := m.packs()
	var err error
	switch {
	case m.size() > 2*m.needed()+slack:
		err = m.dropUnneeded(ctx, set, keep)
	case len(set) > maxPacks:
		err = m.joinSmall(ctx, set)
	}
	if err != nil {
		return fmt.Errorf("tidy mirror %s: %w", m.dir, err)
	}
	return nil
}

// size is what all packs take, in bytes.
func (m *Mirror) size() int64 {
	var size int64
	for _, p := range m.packs() {
		size += p.size
	}
	return size
}

// noteNeeded remembers the size of a mirror in which everything is needed.
func (m *Mirror) noteNeeded(size int64) error {
	return durable.WriteFile(filepath.Join(m.dir, neededFile), []byte(strconv.FormatInt(size, 10)+"\n"), 0o600)
}

// needed is what noteNeeded was told last.
func (m *Mirror) needed() int64 {
	data, err := os.ReadFile(filepath.Join(m.dir, neededFile))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// joinSmall writes all packs but the large ones as one. What it writes is small
// beside what stays.
func (m *Mirror) joinSmall(ctx context.Context, set packSet) error {
	ordered := slices.Clone(set)
	slices.SortFunc(ordered, func(a, b *pack) int { return int(a.size - b.size) })
	small, total := packSet{}, int64(0)
	for i, p := range ordered {
		if i > maxPacks/2 && p.size > total {
			break
		}
		small, total = append(small, p), total+p.size
	}
	// In the order in which they came, so that deltas find their bases.
	small = slices.DeleteFunc(slices.Clone(set), func(p *pack) bool { return !slices.Contains(small, p) })
	var ids []plumbing.Hash
	for _, p := range small {
		all, err := p.index.all()
		if err != nil {
			return err
		}
		for _, o := range all {
			ids = append(ids, o.id)
		}
	}
	_, err := m.rewrite(ctx, small, ids)
	return err
}

// dropUnneeded writes what the given commits and the fetched references need as
// one pack that takes the place of all others.
func (m *Mirror) dropUnneeded(ctx context.Context, set packSet, keep []string) error {
	tips, err := m.tips()
	if err != nil {
		return err
	}
	ids, err := m.reach(ctx, m.known(append(tips, keep...)), map[plumbing.Hash]bool{})
	if err != nil || len(ids) == 0 {
		return err
	}
	size, err := m.rewrite(ctx, set, ids)
	if err != nil {
		return err
	}
	return m.noteNeeded(size)
}

// tips lists what the references point to.
func (m *Mirror) tips() ([]string, error) {
	var out []string
	err := filepath.WalkDir(filepath.Join(m.dir, "refs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if id := strings.TrimSpace(string(data)); err == nil && plumbing.IsHash(id) {
			out = append(out, id)
		}
		return err
	})
	return out, err
}

// rewrite replaces packs by one with the given objects of them, and returns its
// size.
func (m *Mirror) rewrite(ctx context.Context, old packSet, ids []plumbing.Hash) (int64, error) {
	file, err := os.CreateTemp(m.packDir(), "tmp_pack_*")
	if err != nil {
		return 0, err
	}
	s := &staged{file: file.Name(), index: file.Name() + ".idx"}
	defer s.discard()
	defer file.Close()
	if s.sum, s.objects, err = old.writePack(ctx, file, ids, m.limits.Object); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	if err := s.writeIndex(); err != nil {
		return 0, err
	}
	p, err := m.publish(s)
	if err != nil {
		return 0, err
	}
	m.replace(old, p)
	for _, o := range old {
		if o.base == p.base {
			continue
		}
		// The index first: without it the pack does not count.
		for _, name := range []string{o.base + ".idx", o.base + ".pack"} {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return 0, err
			}
		}
	}
	return p.size, durable.SyncDir(m.packDir())
}

// replace puts one pack in the place of others, before those that came since.
func (m *Mirror) replace(old packSet, p *pack) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(m.set), func(o *pack) bool { return slices.Contains(old, o) })
	first := slices.IndexFunc(m.set, func(o *pack) bool { return slices.Contains(old, o) })
	m.set = slices.Insert(rest, min(max(first, 0), len(rest)), p)
}
