package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// reserve is what an import leaves free on the disk: a full one stops
	// everything else on the node.
	reserve = 256 << 20
	// maxGitBundles is how many repositories of bundles are kept.
	maxGitBundles = 3
)

// Imported is what an import did.
type Imported struct {
	// Bundle is the digest of the bundle's index, Commit the commit that it is
	// for, if any.
	Bundle string `json:"bundle"`
	Commit string `json:"commit,omitempty"`
	// Images are the digests of the images in the bundle, by name.
	Images map[string]string `json:"images"`
	// Artifacts are those of what is no image to run, such as an operating system.
	Artifacts map[string]string `json:"artifacts,omitempty"`
	// Read is how many bytes were taken in, Had how many were there before.
	Read int64 `json:"read"`
	Had  int64 `json:"had"`
	// Git says that the repository of the bundle is on the node now.
	Git bool `json:"git"`
}

// Import takes in a bundle: a directory, a tar file, or a directory such as
// that of a removable volume which has bundles in it; "-" reads r. The images are
// in the index, and visible to others, once everything that belongs to them
// is there. progress, if not nil, is told how many bytes came in.
func (s *Store) Import(ctx context.Context, path string, r io.Reader, progress func(read int64)) ([]Imported, error) {
	var places []string
	if path != "-" {
		var err error
		if places, err = Bundles(path); err != nil {
			return nil, err
		}
	}
	unlock, err := s.lockBlobs()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if path == "-" {
		one, err := s.importOne(ctx, progress, func(v bundle.Visitor) error { return bundle.Read(ctx, r, v) })
		return []Imported{one}, err
	}
	var all []Imported
	for _, p := range places {
		one, err := s.importOne(ctx, progress, func(v bundle.Visitor) error { return bundle.ReadPath(ctx, p, v) })
		if err != nil {
			return all, fmt.Errorf("import %s: %w", p, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// Bundles finds the bundles that a path stands for, those that others build on
// first: a bundle itself, or those in the top directory of a volume.
func Bundles(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() || isLayout(path) {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	type place struct {
		path string
		base bool
	}
	var found []place
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !isLayout(name) && !(e.Type().IsRegular() && strings.HasSuffix(name, ".tar")) {
			continue
		}
		i, err := peek(name)
		if err != nil {
			continue // somebody else's archive
		}
		found = append(found, place{name, i.Base != ""})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no bundle: neither is it an image layout (index.json), nor does it contain one or a .tar file of one", path)
	}
	slices.SortStableFunc(found, func(a, b place) int {
		switch {
		case a.base == b.base:
			return 0
		case b.base:
			return -1
		}
		return 1
	})
	var out []string
	for _, f := range found {
		out = append(out, f.path)
	}
	return out, nil
}

func isLayout(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ocispec.ImageIndexFile))
	return err == nil
}

// peek reads the index of a bundle and nothing else.
func peek(path string) (*bundle.Index, error) {
	var i *bundle.Index
	done := errors.New("enough")
	err := bundle.ReadPath(context.Background(), path, bundle.Visitor{
		Index: func(r io.Reader) (err error) {
			if i, err = bundle.DecodeIndex(r, ""); err == nil {
				err = done
			}
			return err
		},
		Blob: func(digest.Digest, int64, func(int64) (io.ReadCloser, error)) error { return nil },
	})
	if errors.Is(err, done) {
		err = nil
	}
	return i, err
}

// importOne takes in one bundle.
func (s *Store) importOne(ctx context.Context, progress func(int64), read func(bundle.Visitor) error) (Imported, error) {
	in := &intake{store: s, ctx: ctx, progress: progress}
	if err := read(bundle.Visitor{Index: in.readIndex, Blob: in.blob}); err != nil {
		return in.result, err
	}
	return in.result, in.complete()
}

// intake is one bundle that is arriving.
type intake struct {
	store    *Store
	ctx      context.Context
	progress func(int64)
	index    *bundle.Index
	result   Imported
}

func (in *intake) readIndex(r io.Reader) (err error) {
	in.index, err = bundle.DecodeIndex(r, in.store.dir)
	return err
}

func (in *intake) blob(name digest.Digest, size int64, open func(int64) (io.ReadCloser, error)) error {
	desc := ocispec.Descriptor{Digest: name, Size: size}
	if in.store.blobs().Has(desc) || in.store.inContainerd(desc) && in.store.borrow(desc) {
		in.result.Had += size
		return nil
	}
	if err := in.store.room(size); err != nil {
		return err
	}
	return in.store.blobs().Take(in.ctx, desc, open, func(n int64) {
		in.result.Read += n
		if in.progress != nil {
			in.progress(in.result.Read)
		}
	})
}

func (s *Store) inContainerd(desc ocispec.Descriptor) bool {
	if s.content == "" {
		return false
	}
	st, err := os.Stat(s.contentPath(desc.Digest))
	return err == nil && st.Size() == desc.Size
}

// room refuses a blob that would fill the disk.
func (s *Store) room(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("space below %s: %w", s.dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if size+reserve > free {
		return fmt.Errorf("a blob of %d MiB does not fit: %d MiB are free below %s, of which %d are kept for the node; remove images with `bothy image prune`, or use a larger disk", size>>20, free>>20, s.dir, int64(reserve)>>20)
	}
	return nil
}

// complete makes the images of a bundle visible, if all that belongs to them
// arrived.
func (in *intake) complete() error {
	in.result.Bundle, in.result.Commit, in.result.Images = in.index.Digest.String(), in.index.Commit, map[string]string{}
	needs, err := in.index.Needs()
	if errors.Is(err, fs.ErrNotExist) {
		return in.lacks(err.Error())
	}
	if err != nil {
		return err
	}
	held := in.index.Commit
	if held == "" {
		held = heldByHand
	}
	var entries []ocispec.Descriptor
	for _, n := range needs {
		for _, d := range n.Blobs {
			if !in.store.blobs().Has(d) && !(in.store.inContainerd(d) && in.store.borrow(d)) {
				return in.lacks(fmt.Sprintf("%s lacks blob %s", n.Image.Name, d.Digest))
			}
		}
		if n.Git {
			continue // what it is for is a file, see below
		}
		entries = append(entries, in.entry(n.Image, held))
		in.note(n.Image)
	}
	err = in.store.change(func(old []ocispec.Descriptor) []ocispec.Descriptor { return put(old, entries...) })
	if err != nil {
		return err
	}
	return in.git(needs)
}

// note puts an image or artifact into the result.
func (in *intake) note(img layout.Image) {
	switch {
	case !layout.IsArtifact(img.Descriptor):
		in.result.Images[img.Name] = img.Descriptor.Digest.String()
	case layout.IsStandalone(img.Descriptor):
		if in.result.Artifacts == nil {
			in.result.Artifacts = map[string]string{}
		}
		in.result.Artifacts[img.Name] = img.Descriptor.Digest.String()
	}
}

// entry is how the store's index names what a bundle brought.
func (in *intake) entry(img layout.Image, held string) ocispec.Descriptor {
	d := img.Descriptor
	d.Annotations = map[string]string{}
	for _, key := range []string{ocispec.AnnotationRefName, bundle.AnnotationSubject} {
		if v := img.Descriptor.Annotations[key]; v != "" {
			d.Annotations[key] = v
		}
	}
	if layout.IsStandalone(d) {
		d.Annotations[annotationHeld] = held
	}
	return d
}

// lacks says what to do about a bundle that is not whole.
func (in *intake) lacks(what string) error {
	if in.index.Base != "" {
		return fmt.Errorf("%s: this bundle has only what the bundle of commit %s (%s) lacks, and this node does not have that; import it first", what, in.index.BaseCommit, in.index.Base)
	}
	return fmt.Errorf("%s: the bundle was not copied whole; copy or make it again", what)
}

// git puts the repository of a bundle where the reconciler's source looks. It
// comes last: the images are there when the commit is.
func (in *intake) git(needs []bundle.Need) error {
	for _, n := range needs {
		if !n.Git {
			continue
		}
		for _, d := range n.Blobs {
			if d.MediaType != bundle.GitMedia {
				continue
			}
			data, err := os.ReadFile(in.store.blobs().Path(d.Digest))
			if err != nil {
				return err
			}
			if err := in.store.putGit(in.index.Commit, data); err != nil {
				return err
			}
			// It is there twice now; the index does not name the blob.
			_ = os.Remove(in.store.blobs().Path(d.Digest))
			in.result.Git = true
		}
	}
	return nil
}

// putGit writes a Git bundle and drops the oldest.
func (s *Store) putGit(commit string, data []byte) error {
	if commit == "" {
		commit = "site"
	}
	name := filepath.Join(s.GitDir(), commit+".bundle")
	if _, err := durable.WriteFileIfChanged(name, data, 0o644); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(s.GitDir(), "*.bundle"))
	if err != nil || len(files) <= maxGitBundles {
		return err
	}
	age := map[string]int64{}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			age[f] = st.ModTime().UnixNano()
		}
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(age[b], age[a]) })
	for _, f := range files[maxGitBundles:] {
		if err := durable.Remove(f); err != nil {
			return err
		}
	}
	return nil
}
