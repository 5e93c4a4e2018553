package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// lateTimeout bounds the fetch of a file that is read.
	lateTimeout = 30 * time.Second
	// latePause is how long after a failure no other file is tried.
	latePause = 10 * time.Second
	// batch is how many files are asked for at once.
	batch = 5000
)

// promisor is the remote that has what a partial clone left out.
type promisor struct {
	mu     sync.Mutex // one late fetch at a time
	remote *Remote
	failed error
	until  time.Time
}

// partialFile marks a mirror from which files may be missing.
const partialFile = "partial"

func (m *Mirror) markPartial() error {
	if m.isPartial() {
		return nil
	}
	return durable.WriteFile(filepath.Join(m.dir, partialFile), []byte("files of older commits were left out\n"), 0o600)
}

func (m *Mirror) isPartial() bool {
	_, err := os.Stat(filepath.Join(m.dir, partialFile))
	return err == nil
}

// fill fetches the files of a commit that are missing from a partial mirror,
// so that the commit is there whole.
func (m *Mirror) fill(ctx context.Context, src source, r Remote, commit plumbing.Hash) error {
	if !m.isPartial() {
		return nil
	}
	ids, err := m.lacking(ctx, commit)
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		if err := m.files(ctx, src, ids); err != nil {
			if ctx.Err() != nil || errors.Is(err, ErrTooLarge) {
				return err
			}
			// The server promised more than it keeps: take everything.
			if err := m.all(ctx, src, commit); err != nil {
				return err
			}
		}
	}
	m.lazy.mu.Lock()
	defer m.lazy.mu.Unlock()
	m.lazy.remote, m.lazy.failed = &r, nil
	return nil
}

// files fetches files by their ids.
func (m *Mirror) files(ctx context.Context, src source, ids []plumbing.Hash) error {
	for len(ids) > 0 {
		n := min(len(ids), batch)
		parts, err := src.stage(ctx, m, request{wants: ids[:n]})
		if err == nil {
			for _, id := range ids[:n] {
				if err = m.contains(id, parts); err != nil {
					break
				}
			}
		}
		if err == nil {
			err = m.admit(ids[0].String(), parts...)
		}
		discardAll(parts)
		if err != nil {
			return fmt.Errorf("fetch files: %w", err)
		}
		ids = ids[n:]
	}
	return nil
}

func (m *Mirror) contains(id plumbing.Hash, parts []*staged) error {
	for _, s := range parts {
		if s != nil && s.has(id) {
			return nil
		}
	}
	if m.has(id) {
		return nil
	}
	return &incomplete{id}
}

// all fetches a commit with every file of its history.
func (m *Mirror) all(ctx context.Context, src source, commit plumbing.Hash) error {
	parts, err := src.stage(ctx, m, request{wants: []plumbing.Hash{commit}})
	defer discardAll(parts)
	if err != nil {
		return err
	}
	return m.admit(commit.String(), parts...)
}

// fetchLate fetches a file because it is read now.
func (m *Mirror) fetchLate(id string) (ObjectType, []byte, error) {
	m.lazy.mu.Lock()
	defer m.lazy.mu.Unlock()
	h := plumbing.NewHash(id)
	if kind, data, err := m.packs().object(h, m.limits.Object); !errors.Is(err, ErrMissing) {
		return kind, data, err // somebody else has fetched it meanwhile
	}
	switch {
	case m.lazy.remote == nil:
		return 0, nil, fmt.Errorf("%w: no repository was reached since the start", ErrNotFetched)
	case time.Now().Before(m.lazy.until) && m.lazy.failed != nil:
		return 0, nil, fmt.Errorf("%w: %w", ErrNotFetched, m.lazy.failed)
	}
	if err := m.fetchFile(*m.lazy.remote, h); err != nil {
		m.lazy.failed, m.lazy.until = fetchError(*m.lazy.remote, err), time.Now().Add(latePause)
		return 0, nil, fmt.Errorf("%w: %w", ErrNotFetched, m.lazy.failed)
	}
	m.lazy.failed = nil
	return m.packs().object(h, m.limits.Object)
}

func (m *Mirror) fetchFile(r Remote, id plumbing.Hash) error {
	ctx, cancel := context.WithTimeout(context.Background(), lateTimeout)
	defer cancel()
	ctx, watch := watched(ctx, m.limits.Stall)
	defer watch.stop()
	src, err := connect(ctx, r, watch)
	if err != nil {
		return watch.explain(err)
	}
	defer src.close()
	if _, err := src.advertise(ctx); err != nil {
		return watch.explain(err)
	}
	return watch.explain(m.files(ctx, src, []plumbing.Hash{id}))
}
