package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/durable"
)

func (s *Store) contentPath(d digest.Digest) string {
	return filepath.Join(s.content, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Lend gives containerd a blob of the store as a second name of the same file,
// if it does not have the blob and both are on one file system. The content is
// hashed before. It reports whether containerd has the file now; the blob counts there
// only once a client has asked containerd to write it, for which nothing is
// copied then.
func (s *Store) Lend(desc ocispec.Descriptor) (bool, error) {
	if s.content == "" {
		return false, nil
	}
	to := s.contentPath(desc.Digest)
	if _, err := os.Stat(to); err == nil {
		return true, nil
	}
	l := &layout.Layout{Dir: s.dir}
	if err := l.VerifyBlob(desc); err != nil {
		return false, err
	}
	return link(l.BlobPath(desc.Digest), to)
}

// link reports whether the file has the second name. Where links cannot be, it
// has not, and that is no error.
func link(from, to string) (bool, error) {
	if _, err := os.Stat(filepath.Dir(to)); err != nil {
		return false, nil //nolint:nilerr // nobody to share with
	}
	err := os.Link(from, to)
	switch {
	case err == nil:
		return true, durable.SyncDir(filepath.Dir(to))
	case errors.Is(err, fs.ErrExist):
		return true, nil
	}
	return false, nil // another file system, or one without links: content is copied
}

// borrow takes a blob that containerd has, without copying. It hashes it: what
// the store has must stand for itself.
func (s *Store) borrow(desc ocispec.Descriptor) bool {
	if s.content == "" || s.blobs().Has(desc) {
		return s.content != ""
	}
	from := &layout.Layout{Dir: s.content}
	if from.VerifyBlob(desc) != nil {
		return false
	}
	if err := durable.MkdirAll(filepath.Dir(s.blobs().Path(desc.Digest)), 0o755); err != nil {
		return false
	}
	ok, err := link(s.contentPath(desc.Digest), s.blobs().Path(desc.Digest))
	return ok && err == nil
}

// Keep puts an image into the store whose blobs containerd has, as when it was
// pulled, and names it. It costs no space. Blobs that cannot be shared are an
// error: then nothing changes.
func (s *Store) Keep(name string, desc ocispec.Descriptor) error {
	unlock, err := s.lockBlobs()
	if err != nil {
		return err
	}
	defer unlock()
	if !s.borrow(desc) {
		return &NotSharedError{desc.Digest}
	}
	entry := ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		Annotations: map[string]string{ocispec.AnnotationRefName: name},
	}
	needs, err := (&bundle.Index{Layout: &layout.Layout{Dir: s.content, Images: []layout.Image{{Name: name, Descriptor: entry}}}}).Needs()
	if err != nil {
		return err
	}
	for _, d := range needs[0].Blobs {
		if !s.borrow(d) {
			return &NotSharedError{d.Digest}
		}
	}
	return s.change(func(entries []ocispec.Descriptor) []ocispec.Descriptor { return put(entries, entry) })
}

// NotSharedError says that a blob of containerd's is not there, or cannot have
// a second name.
type NotSharedError struct{ Digest digest.Digest }

func (e *NotSharedError) Error() string {
	return "blob " + e.Digest.String() + " cannot be shared with containerd: the store of images and containerd's must be on one file system with hard links"
}
