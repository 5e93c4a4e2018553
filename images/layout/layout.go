package layout

import (
	"encoding/json"
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
)

// maxIndexSize bounds index.json: a real one has a few hundred bytes per image.
const maxIndexSize = 8 << 20

// Layout is an open OCI layout directory.
type Layout struct {
	// Dir is the directory that holds index.json.
	Dir string
	// Images are the named images in the order of index.json. Descriptors
	// without a name are not listed: nothing could refer to them.
	Images []Image
}

// Image is one named entry of index.json.
type Image struct {
	// Name is the full reference, from the annotation
	// org.opencontainers.image.ref.name.
	Name string
	// Descriptor points to the manifest (or to an index of platforms).
	Descriptor ocispec.Descriptor
}

// BlobError says which blob of a layout is unusable and why.
type BlobError struct {
	// File is the path of the blob.
	File string
	// Digest is what its content should hash to.
	Digest digest.Digest
	// Err is what is wrong.
	Err error
}

func (e *BlobError) Error() string {
	return fmt.Sprintf("blob %s (%s): %v; build or copy the image layout again", e.File, e.Digest, e.Err)
}

func (e *BlobError) Unwrap() error { return e.Err }

// Open reads index.json of the layout in dir. A missing directory is reported
// as fs.ErrNotExist.
func Open(dir string) (*Layout, error) {
	path := filepath.Join(dir, ocispec.ImageIndexFile)
	index, err := readIndex(path)
	if err != nil {
		return nil, err
	}
	l := &Layout{Dir: dir}
	for _, d := range index.Manifests {
		name := d.Annotations[ocispec.AnnotationRefName]
		if name == "" {
			continue
		}
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("image layout %s: image %s: digest %q: %w", path, name, d.Digest, err)
		}
		l.Images = append(l.Images, Image{Name: name, Descriptor: d})
	}
	return l, nil
}

// Entries returns all descriptors of index.json, named or not: signatures of
// images may have no name.
func (l *Layout) Entries() ([]ocispec.Descriptor, error) {
	index, err := readIndex(filepath.Join(l.Dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("image layout %s: digest %q: %w", l.Dir, d.Digest, err)
		}
	}
	return index.Manifests, nil
}

// ReadSmall returns the content of a blob of at most limit bytes after checking
// its digest.
func (l *Layout) ReadSmall(d digest.Digest, limit int64) ([]byte, error) {
	path := l.BlobPath(d)
	st, err := os.Stat(path)
	if err != nil {
		return nil, &BlobError{File: path, Digest: d, Err: err}
	}
	if st.Size() > limit {
		return nil, &BlobError{File: path, Digest: d, Err: fmt.Errorf("%d bytes is too large, the limit is %d", st.Size(), limit)}
	}
	return l.ReadBlob(ocispec.Descriptor{Digest: d, Size: st.Size()})
}

func readIndex(path string) (*ocispec.Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndexSize+1))
	if err != nil {
		return nil, fmt.Errorf("read image layout %s: %w", path, err)
	}
	if len(data) > maxIndexSize {
		return nil, fmt.Errorf("image layout %s is larger than %d MiB: not an OCI index", path, maxIndexSize>>20)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("image layout %s is not an OCI index: %w", path, err)
	}
	return &index, nil
}

// First returns the images with the named one in front, the others in order.
func (l *Layout) First(name string) []Image {
	out := slices.Clone(l.Images)
	slices.SortStableFunc(out, func(a, b Image) int {
		switch {
		case a.Name == name && b.Name != name:
			return -1
		case b.Name == name && a.Name != name:
			return 1
		default:
			return 0
		}
	})
	return out
}

// BlobPath is where the blob with digest d lies.
func (l *Layout) BlobPath(d digest.Digest) string {
	return filepath.Join(l.Dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// OpenBlob opens the blob a descriptor points to, after comparing its size. It
// does not hash the content: whoever reads the blob does.
func (l *Layout) OpenBlob(desc ocispec.Descriptor) (*os.File, error) {
	path := l.BlobPath(desc.Digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &BlobError{File: path, Digest: desc.Digest, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != desc.Size {
		err = fmt.Errorf("has %d bytes instead of %d", st.Size(), desc.Size)
	}
	if err != nil {
		f.Close()
		return nil, &BlobError{File: path, Digest: desc.Digest, Err: err}
	}
	return f, nil
}

// ReadBlob returns the content of a small blob, such as a manifest, after
// checking its digest.
func (l *Layout) ReadBlob(desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxIndexSize {
		return nil, &BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: fmt.Errorf("%d bytes is too large for %s", desc.Size, desc.MediaType)}
	}
	f, err := l.OpenBlob(desc)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, &BlobError{File: f.Name(), Digest: desc.Digest, Err: fmt.Errorf("content hashes to %s", got)}
	}
	return data, nil
}

// Manifest returns the image manifest desc points to. An index of several
// platforms is followed to the entry for os/arch.
func (l *Layout) Manifest(desc ocispec.Descriptor, os, arch string) (ocispec.Descriptor, *ocispec.Manifest, error) {
	data, err := l.ReadBlob(desc)
	if err != nil {
		return desc, nil, err
	}
	if isIndex(desc.MediaType) {
		next, err := l.platform(desc, data, os, arch)
		if err != nil {
			return desc, nil, err
		}
		return l.Manifest(next, os, arch)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return desc, nil, &BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: fmt.Errorf("not a manifest: %w", err)}
	}
	return desc, &m, nil
}

func (l *Layout) platform(desc ocispec.Descriptor, data []byte, os, arch string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return desc, &BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: fmt.Errorf("not an index: %w", err)}
	}
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil {
			continue
		}
		if d.Platform.OS == os && d.Platform.Architecture == arch && !isIndex(d.MediaType) {
			return d, nil
		}
		have = append(have, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	return desc, fmt.Errorf("image is for %s, this machine is %s/%s", strings.Join(have, ", "), os, arch)
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex ||
		mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// Verify hashes every blob of an image and returns the first that is wrong.
func (l *Layout) Verify(img Image, os, arch string) error {
	_, m, err := l.Manifest(img.Descriptor, os, arch)
	if err != nil {
		return err
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := l.VerifyBlob(d); err != nil {
			return err
		}
	}
	return nil
}

// VerifyBlob hashes one blob and returns a [BlobError] if it is not what desc
// says.
func (l *Layout) VerifyBlob(desc ocispec.Descriptor) error {
	f, err := l.OpenBlob(desc)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := desc.Digest.Algorithm().FromReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if got != desc.Digest {
		return &BlobError{File: f.Name(), Digest: desc.Digest, Err: fmt.Errorf("content hashes to %s", got)}
	}
	return nil
}
