package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/internal/durable"
)

// maxPacks is how many fetches may leave a pack before they are joined. Looking
// for an object takes time in proportion to the packs.
const maxPacks = 50

// compact joins the packs into one that holds what keep needs. Objects of
// commits that were refused, or pushed over, are dropped by it. It works beside
// the mirror and changes places with it at the end, so that reading goes on and
// a power cut leaves either of the two.
func (m *Mirror) compact(ctx context.Context, branch, tip string, keep []string) error {
	packs, err := filepath.Glob(filepath.Join(m.dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) <= maxPacks {
		return err
	}
	beside := &Mirror{dir: m.dir + besideSuffix, limits: m.limits}
	beside.limits.Fetch, beside.limits.Objects = 1<<40, 1<<40 // it is all here already
	if err := os.RemoveAll(beside.dir); err != nil {
		return err
	}
	// Without HEAD it does not count as a mirror until it is complete.
	if err := durable.MkdirAll(filepath.Join(beside.dir, "objects", "pack"), 0o700); err != nil {
		return err
	}
	beside.reopen()
	src, err := openLocal(m.dir)
	if err != nil {
		return err
	}
	defer src.close()
	for _, id := range append(keep, tip) {
		if id == "" || !m.Has(id) {
			continue
		}
		if err := src.pack(ctx, beside, plumbing.NewHash(id), nil); err != nil {
			return fmt.Errorf("join packs: %w", err)
		}
		beside.reopen()
	}
	if err := beside.setTip(branch, tip); err != nil {
		return err
	}
	if err := beside.create(); err != nil {
		return err
	}
	return m.replaceBy(beside.dir)
}

const besideSuffix = ".compact"

// replaceBy puts the directory in the mirror's place.
func (m *Mirror) replaceBy(dir string) error {
	old := m.dir + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.Rename(m.dir, old); err != nil {
		return err
	}
	if err := os.Rename(dir, m.dir); err != nil {
		return err
	}
	m.storage = m.open()
	if err := durable.SyncDir(filepath.Dir(m.dir)); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// finishReplacing completes what a power cut interrupted between the two
// renames.
func (m *Mirror) finishReplacing() error {
	beside := m.dir + besideSuffix
	_, err := os.Stat(m.dir)
	if err == nil {
		return os.RemoveAll(beside)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the mirror: %w", err)
	}
	if _, err := os.Stat(filepath.Join(beside, "HEAD")); err != nil {
		return nil //nolint:nilerr // nothing whole to put in place; the mirror begins anew
	}
	return os.Rename(beside, m.dir)
}
