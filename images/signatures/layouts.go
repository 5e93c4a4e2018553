package signatures

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/cosign"
)

// Layouts are OCI layout directories that are asked again and again. What refers
// to what in one is read once, and again when its index.json was replaced. It is
// safe for concurrent use.
type Layouts struct {
	dirs []string

	mu   sync.Mutex
	open map[string]opened
}

type opened struct {
	repository *LayoutRepository
	modified   time.Time
	size       int64
}

// NewLayouts returns the layouts in dirs. One that does not exist has no
// signatures.
func NewLayouts(dirs []string) *Layouts { return &Layouts{dirs: dirs, open: map[string]opened{}} }

// Get returns what is attached to a digest in any of the layouts; with an error,
// which says what could not be read, what could.
func (l *Layouts) Get(digest string) (*cosign.Signatures, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := &cosign.Signatures{Digest: digest}
	var unread []error
	for _, dir := range l.dirs {
		r, err := l.repository(dir)
		if r == nil {
			unread = append(unread, err)
			continue
		}
		found, err := cosign.Collect(context.Background(), r, digest)
		all.Merge(found)
		unread = append(unread, err)
	}
	return all, errors.Join(unread...)
}

// repository opens a layout; nil if there is none, or it cannot be read.
func (l *Layouts) repository(dir string) (*LayoutRepository, error) {
	st, err := os.Stat(filepath.Join(dir, ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if o := l.open[dir]; o.repository != nil && o.modified.Equal(st.ModTime()) && o.size == st.Size() {
		return o.repository, nil
	}
	read, err := layout.Open(dir)
	if err != nil {
		return nil, err
	}
	r, err := Layout(read)
	if err != nil {
		return nil, err
	}
	l.open[dir] = opened{repository: r, modified: st.ModTime(), size: st.Size()}
	return r, nil
}
