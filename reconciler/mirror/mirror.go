package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/internal/durable"
)

// Limits bound what a repository may cost. Sizes are in bytes; zero fields take
// the defaults.
type Limits struct {
	// Fetch is the largest pack accepted in one fetch. Default 256 MiB.
	Fetch int64
	// Objects is the largest sum of object sizes in one fetch. Default 1 GiB.
	Objects int64
	// Object is the largest object accepted. Default 32 MiB.
	Object int64
	// Stall is how long a server may send next to nothing. Default 1m.
	Stall time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Fetch == 0 {
		l.Fetch = 256 << 20
	}
	if l.Objects == 0 {
		l.Objects = 1 << 30
	}
	if l.Object == 0 {
		l.Object = 32 << 20
	}
	if l.Stall == 0 {
		l.Stall = time.Minute
	}
	return l
}

func (l Limits) checkSize(n int64) error {
	if n > l.Object {
		return fmt.Errorf("%w: an object has %d bytes, the limit is %d", ErrTooLarge, n, l.Object)
	}
	return nil
}

// ObjectType is the type of a Git object.
type ObjectType = plumbing.ObjectType

// The object types that are read.
const (
	CommitObject = plumbing.CommitObject
	TreeObject   = plumbing.TreeObject
	BlobObject   = plumbing.BlobObject
	TagObject    = plumbing.TagObject
)

// cacheSize bounds the memory for objects that were read last, which are the
// bases of deltas of those read next.
const cacheSize = 4 << 20

// Mirror is a bare repository on disk. Its methods may be used by several
// goroutines; fetches are made one at a time.
type Mirror struct {
	dir    string
	limits Limits
	cache  *bases

	fetching sync.Mutex
	lazy     promisor

	mu  sync.Mutex
	set packSet // replaced, never changed
}

const config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"

// Open opens the mirror in dir, or makes an empty one. It returns ErrCorrupt
// if the directory holds something that is not a repository.
func Open(dir string, limits Limits) (*Mirror, error) {
	m := &Mirror{dir: dir, limits: limits.withDefaults(), cache: newBases(cacheSize)}
	_, err := os.Stat(filepath.Join(dir, "HEAD"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := m.create(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("open mirror %s: %w", dir, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil || string(data) != config {
		return m, fmt.Errorf("open mirror %s: %w: its configuration is not the one bothy wrote", dir, ErrCorrupt)
	}
	m.removeLeftovers()
	if err := m.reopen(); err != nil {
		return m, fmt.Errorf("open mirror %s: %w", dir, err)
	}
	return m, nil
}

// create writes the files that make a directory a repository; HEAD is last,
// because Open looks for it.
func (m *Mirror) create() error {
	for _, sub := range []string{"objects/pack", "refs/heads"} {
		if err := durable.MkdirAll(filepath.Join(m.dir, sub), 0o700); err != nil {
			return fmt.Errorf("create mirror %s: %w", m.dir, err)
		}
	}
	if err := durable.WriteFile(filepath.Join(m.dir, "config"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("create mirror: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(m.dir, "HEAD"), []byte("ref: refs/heads/none\n"), 0o600); err != nil {
		return fmt.Errorf("create mirror: %w", err)
	}
	return nil
}

// removeLeftovers deletes what an interrupted fetch left behind: files that
// were being written, and packs whose index had no name yet.
func (m *Mirror) removeLeftovers() {
	for _, pattern := range []string{"objects/pack/tmp_*", "incoming-*.pack"} {
		names, _ := filepath.Glob(filepath.Join(m.dir, pattern))
		for _, name := range names {
			_ = os.Remove(name)
		}
	}
	packs, _ := filepath.Glob(filepath.Join(m.packDir(), "pack-*.pack"))
	for _, name := range packs {
		if _, err := os.Stat(strings.TrimSuffix(name, ".pack") + ".idx"); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(name)
		}
	}
}

func (m *Mirror) packDir() string { return filepath.Join(m.dir, "objects", "pack") }

func (m *Mirror) reopen() error {
	set, err := openPacks(m.packDir(), m.cache)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set = set
	m.cache.drop()
	return nil
}

// packs returns the packs that the mirror consists of now.
func (m *Mirror) packs() packSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set
}

// Reset moves the mirror aside and starts an empty one. The one moved aside
// before is deleted, so that at most one damaged mirror is kept for inspection.
func (m *Mirror) Reset() error {
	m.fetching.Lock()
	defer m.fetching.Unlock()
	aside := m.dir + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("reset mirror: %w", err)
	}
	if err := os.Rename(m.dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reset mirror: %w", err)
	}
	if err := m.create(); err != nil {
		return err
	}
	return m.reopen()
}

// Has reports whether the object is in the mirror.
func (m *Mirror) Has(id string) bool { return m.has(plumbing.NewHash(id)) }

func (m *Mirror) has(id plumbing.Hash) bool {
	p, _, err := m.packs().locate(id)
	return p != nil && err == nil
}

// Object returns the content of an object after comparing its hash with its
// id. A file that a partial clone left out is fetched. Errors are ErrMissing,
// ErrNotFetched, ErrTooLarge, ErrMalformedTree if the object is of another type,
// or ErrCorrupt.
func (m *Mirror) Object(t ObjectType, id string) ([]byte, error) {
	data, err := m.read(t, id)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", t, short(id), err)
	}
	if got := plumbing.ComputeHash(t, data).String(); got != id {
		return nil, fmt.Errorf("read %s %s: %w: its content has the id %s", t, short(id), ErrCorrupt, short(got))
	}
	return data, nil
}

func (m *Mirror) read(t ObjectType, id string) ([]byte, error) {
	kind, data, err := m.packs().object(plumbing.NewHash(id), m.limits.Object)
	if errors.Is(err, ErrMissing) && t == BlobObject && m.isPartial() {
		kind, data, err = m.fetchLate(id)
	}
	switch {
	case err != nil:
		return nil, err
	case kind != t:
		return nil, fmt.Errorf("%w: it is a %s", ErrMalformedTree, kind)
	}
	return bytes.Clone(data), nil // the cache keeps the original
}

// Tip returns the commit that the last complete fetch of branch found, or ""
// if there was none.
func (m *Mirror) Tip(branch string) (string, error) { return m.tip(Reference{Branch: branch}) }

func (m *Mirror) tip(r Reference) (string, error) {
	data, err := os.ReadFile(m.refPath(r))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read branch of mirror: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if !plumbing.IsHash(id) {
		return "", fmt.Errorf("read branch of mirror: %w: %s holds no object id", ErrCorrupt, m.refPath(r))
	}
	return id, nil
}

func (m *Mirror) setTip(r Reference, id string) error {
	_, err := durable.WriteFileIfChanged(m.refPath(r), []byte(id+"\n"), 0o600)
	return err
}

// refPath is the file that records what was fetched for a reference.
func (m *Mirror) refPath(r Reference) string {
	if r.onlyBranch() {
		return filepath.Join(m.dir, "refs", "heads", filepath.FromSlash(r.Branch))
	}
	sum := sha256.Sum256([]byte(r.String()))
	return filepath.Join(m.dir, "refs", "fetched", hex.EncodeToString(sum[:16]))
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
