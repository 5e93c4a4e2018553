package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/durable"
)

// Annotations of entries of the store's index.
const (
	// annotationHeld is the commit of the bundle that brought an image or artifact which
	// no accepted commit needs yet; "-" for a bundle of no commit.
	annotationHeld = "dev.bothy.store.held"
	// heldByHand is for what somebody imported without a commit.
	heldByHand = "-"
)

// Store is the store of one node. Several processes may use it.
type Store struct {
	dir string
	// content is containerd's directory of blobs; "" if there is none.
	content string
}

// New returns the store in dir, which need not exist yet. contentDir is the
// directory of containerd's content store on the same machine; it may be empty
// or not exist.
func New(dir, contentDir string) *Store { return &Store{dir: dir, content: contentDir} }

// Dir is the directory of the store: an OCI image layout.
func (s *Store) Dir() string { return s.dir }

// GitDir is where the repositories of bundles are, for a source of the
// reconciler.
func (s *Store) GitDir() string { return filepath.Join(s.dir, "git") }

func (s *Store) blobs() bundle.Blobs { return bundle.Blobs{Dir: s.dir} }

// Open reads the index. A store that has never had an image is empty.
func (s *Store) Open() (*bundle.Index, error) {
	i, err := bundle.OpenDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &bundle.Index{Layout: &layout.Layout{Dir: s.dir}}, nil
	}
	return i, err
}

// lock keeps other processes from changing the index until unlock is called.
func (s *Store) lock(name string, how int) (unlock func(), err error) {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lockIndex is held for moments, lockBlobs while blobs arrive or go.
func (s *Store) lockIndex() (func(), error) { return s.lock("index.lock", unix.LOCK_EX) }

func (s *Store) lockBlobs() (func(), error) {
	unlock, err := s.lock("import.lock", unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	return unlock, err
}

// ErrBusy says that another process imports or removes images.
var ErrBusy = errors.New("another import into this node is under way; wait until it has ended")

// change edits the entries of the index. It is written only if they differ.
func (s *Store) change(edit func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	unlock, err := s.lockIndex()
	if err != nil {
		return err
	}
	defer unlock()
	i, err := s.Open()
	if err != nil {
		return err
	}
	var entries []ocispec.Descriptor
	for _, img := range slices.Concat(i.Images, i.Artifacts) {
		entries = append(entries, img.Descriptor)
	}
	text, err := json.MarshalIndent(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: edit(entries),
	}, "", "  ")
	if err != nil {
		return err
	}
	marker := []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}` + "\n")
	if _, err := durable.WriteFileIfChanged(filepath.Join(s.dir, ocispec.ImageLayoutFile), marker, 0o644); err != nil {
		return err
	}
	_, err = durable.WriteFileIfChanged(filepath.Join(s.dir, ocispec.ImageIndexFile), append(text, '\n'), 0o644)
	return err
}

// put replaces entries of the same name, or of the same digest without one.
func put(entries []ocispec.Descriptor, more ...ocispec.Descriptor) []ocispec.Descriptor {
	for _, d := range more {
		name := d.Annotations[ocispec.AnnotationRefName]
		at := slices.IndexFunc(entries, func(e ocispec.Descriptor) bool {
			if name == "" {
				return e.Digest == d.Digest && e.Annotations[ocispec.AnnotationRefName] == ""
			}
			return e.Annotations[ocispec.AnnotationRefName] == name
		})
		if at < 0 {
			entries = append(entries, d)
		} else {
			entries[at] = d
		}
	}
	return entries
}

// Prune drops the images and artifacts that neither pins nor keep want, with what is attached
// to them, and every blob that nothing refers to any more. It returns the names
// that were dropped. byHand drops what bundles brought for commits that were never
// accepted, too, and what an interrupted import left.
func (s *Store) Prune(keep func(name string) bool, byHand bool) ([]string, error) {
	unlock, err := s.lockBlobs()
	if err != nil {
		return nil, err
	}
	defer unlock()
	pins, err := s.Pins()
	if err != nil {
		return nil, err
	}
	var dropped []string
	err = s.change(func(entries []ocispec.Descriptor) []ocispec.Descriptor {
		var left []ocispec.Descriptor
		for _, d := range entries {
			name := d.Annotations[ocispec.AnnotationRefName]
			held := d.Annotations[annotationHeld] != "" && !byHand
			if !layout.IsStandalone(d) || held || keep(name) || pins.Need(name) {
				left = append(left, d)
				continue
			}
			dropped = append(dropped, name)
		}
		return s.withoutOrphans(left)
	})
	if err != nil {
		return nil, err
	}
	if len(dropped) == 0 && !byHand {
		return nil, nil
	}
	return dropped, s.sweep()
}

// withoutOrphans drops signatures of what is not there any more.
func (s *Store) withoutOrphans(entries []ocispec.Descriptor) []ocispec.Descriptor {
	l := &layout.Layout{Dir: s.dir}
	there := map[digest.Digest]bool{}
	for changed := true; changed; {
		changed = false
		for _, d := range entries {
			if there[d.Digest] || !layout.IsStandalone(d) && !there[bundle.SubjectOf(d)] {
				continue
			}
			changed = true
			for _, b := range bundle.Documents(l, d) {
				there[b.Digest] = true
			}
			there[d.Digest] = true
		}
	}
	return slices.DeleteFunc(entries, func(d ocispec.Descriptor) bool { return !there[d.Digest] })
}

// sweep removes the blobs that the index does not lead to.
func (s *Store) sweep() error {
	i, err := s.Open()
	if err != nil {
		return err
	}
	needs, err := i.Needs()
	if err != nil {
		return fmt.Errorf("the store of images is damaged, nothing is removed: %w", err)
	}
	keep := map[digest.Digest]bool{}
	for _, n := range needs {
		for _, d := range n.Blobs {
			keep[d.Digest] = true
		}
	}
	return s.blobs().RemoveExcept(keep)
}
