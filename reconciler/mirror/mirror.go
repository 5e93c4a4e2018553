package mirror

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/bothy-os/bothy/internal/durable"
)

// Limits bound what a repository may cost, in bytes. Zero fields take the
// defaults.
type Limits struct {
	// Fetch is the largest pack accepted in one fetch. Default 256 MiB.
	Fetch int64
	// Objects is the largest sum of object sizes in one fetch. Default 1 GiB.
	Objects int64
	// Object is the largest object accepted. Default 32 MiB.
	Object int64
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
	return l
}

// ObjectType is the type of a Git object.
type ObjectType = plumbing.ObjectType

// The object types that are read.
const (
	CommitObject = plumbing.CommitObject
	TreeObject   = plumbing.TreeObject
	BlobObject   = plumbing.BlobObject
)

// cacheSize bounds the memory for delta bases while objects are read.
const cacheSize = 4 * cache.MiByte

// Mirror is a bare repository on disk. Its methods may be used by several
// goroutines; fetches are made one at a time.
type Mirror struct {
	dir    string
	limits Limits

	fetching sync.Mutex

	mu      sync.Mutex
	storage *filesystem.Storage // replaced after each fetch
}

const config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"

// Open opens the mirror in dir, or makes an empty one. It returns ErrCorrupt
// if the directory holds something that is not a repository.
func Open(dir string, limits Limits) (*Mirror, error) {
	m := &Mirror{dir: dir, limits: limits.withDefaults()}
	if err := m.finishReplacing(); err != nil {
		return nil, fmt.Errorf("open mirror %s: %w", dir, err)
	}
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
	m.reopen()
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

// removeLeftovers deletes what an interrupted fetch left behind.
func (m *Mirror) removeLeftovers() {
	for _, pattern := range []string{"objects/pack/tmp_*", "incoming-*.pack"} {
		names, _ := filepath.Glob(filepath.Join(m.dir, pattern))
		for _, name := range names {
			os.Remove(name)
		}
	}
}

func (m *Mirror) reopen() {
	s := m.open()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.storage = s
}

func (m *Mirror) open() *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(m.dir), cache.NewObjectLRU(cacheSize), filesystem.Options{})
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
	m.reopen()
	return nil
}

// Has reports whether the object is in the mirror.
func (m *Mirror) Has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.storage.HasEncodedObject(plumbing.NewHash(id)) == nil
}

// Object returns the content of an object after comparing its hash with its
// id. Errors are ErrMissing, ErrTooLarge or ErrCorrupt.
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

func (m *Mirror) read(t ObjectType, id string) (data []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A damaged pack can make go-git index out of range.
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	object, err := m.storage.EncodedObject(t, plumbing.NewHash(id))
	switch {
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return nil, ErrMissing
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	case object.Size() > m.limits.Object:
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, object.Size(), m.limits.Object)
	}
	r, err := object.Reader()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	defer r.Close()
	data, err = io.ReadAll(io.LimitReader(r, m.limits.Object+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return data, nil
}

// Tip returns the commit that the last complete fetch of branch found, or ""
// if there was none.
func (m *Mirror) Tip(branch string) (string, error) {
	data, err := os.ReadFile(m.refPath(branch))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read branch of mirror: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if !plumbing.IsHash(id) {
		return "", fmt.Errorf("read branch of mirror: %w: %s holds no object id", ErrCorrupt, m.refPath(branch))
	}
	return id, nil
}

func (m *Mirror) setTip(branch, id string) error {
	_, err := durable.WriteFileIfChanged(m.refPath(branch), []byte(id+"\n"), 0o600)
	return err
}

func (m *Mirror) refPath(branch string) string {
	return filepath.Join(m.dir, "refs", "heads", filepath.FromSlash(branch))
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
