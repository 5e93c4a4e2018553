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
	// Images are the named images in the order of index.json.
	Images []Image
	// Artifacts are the other entries: signatures and attestations by the tags
	// that cosign gives them, and what has an artifact type, named or not.
	Artifacts []Image
	// Unnamed are entries that have neither. [Layout.Referring] finds those among
	// them that refer to an image: not every tool writes into the index what they are.
	Unnamed []ocispec.Descriptor
	// Annotations are those of the index itself.
	Annotations map[string]string
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
	return FromIndex(dir, index)
}

// FromIndex is [Open] for an index that was read already.
func FromIndex(dir string, index *ocispec.Index) (*Layout, error) {
	path := filepath.Join(dir, ocispec.ImageIndexFile)
	l := &Layout{Dir: dir, Annotations: index.Annotations}
	for _, d := range index.Manifests {
		name := d.Annotations[ocispec.AnnotationRefName]
		if name == "" && !IsArtifact(d) {
			l.Unnamed = append(l.Unnamed, d)
			continue
		}
		if err := errors.Join(checkDescriptor(d), checkName(name, d)); err != nil {
			return nil, fmt.Errorf("image layout %s: image %s: %w", path, name, err)
		}
		if IsArtifact(d) {
			l.Artifacts = append(l.Artifacts, Image{Name: name, Descriptor: d})
			continue
		}
		l.Images = append(l.Images, Image{Name: name, Descriptor: d})
	}
	return l, nil
}

// Standalone are the artifacts that are there for their own sake, such as an operating system, and not
// because they belong to an image.
func (l *Layout) Standalone() []Image {
	return slices.DeleteFunc(slices.Clone(l.Artifacts), func(a Image) bool { return !IsStandalone(a.Descriptor) })
}

// maxReferring bounds the manifest of what refers to an image.
const maxReferring = 1 << 20

// Referring returns those of Unnamed, whose content must be on disk, that refer to a
// manifest, with its digest as subject. What cannot be read is left out: nothing
// names it.
func (l *Layout) Referring() (artifacts []Image, subjects []digest.Digest) {
	for _, d := range l.Unnamed {
		if checkDescriptor(d) != nil || !IsManifest(d.MediaType) || d.Size > maxReferring {
			continue
		}
		data, err := l.ReadBlob(d)
		if err != nil {
			continue
		}
		m, err := DecodeManifest(data, d)
		if err != nil || m.Subject == nil {
			continue
		}
		d.Annotations = nil
		d.ArtifactType = artifactType(m)
		artifacts, subjects = append(artifacts, Image{Descriptor: d}), append(subjects, m.Subject.Digest)
	}
	return artifacts, subjects
}

// artifactType is what a manifest that refers to another says it is, if not clearly.
func artifactType(m *ocispec.Manifest) string {
	for _, t := range []string{m.ArtifactType, m.Config.MediaType} {
		if IsArtifact(ocispec.Descriptor{ArtifactType: t}) {
			return t
		}
	}
	if len(m.Layers) > 0 && m.Layers[0].MediaType != "" {
		return m.Layers[0].MediaType
	}
	return ocispec.MediaTypeEmptyJSON
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
	return DecodeIndex(f, path)
}

// DecodeIndex reads an index.json, which is called path in errors.
func DecodeIndex(r io.Reader, path string) (*ocispec.Index, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxIndexSize+1))
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
	if IsIndex(desc.MediaType) {
		next, err := l.platform(desc, data, os, arch)
		if err != nil {
			return desc, nil, err
		}
		return l.Manifest(next, os, arch)
	}
	m, err := DecodeManifest(data, desc)
	if err != nil {
		return desc, nil, &BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: err}
	}
	if err := l.checkPlatform(desc, m); err != nil {
		return desc, nil, err
	}
	return desc, m, nil
}

func (l *Layout) platform(desc ocispec.Descriptor, data []byte, os, arch string) (ocispec.Descriptor, error) {
	index, err := DecodeImageIndex(data, desc)
	if err != nil {
		return desc, &BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: err}
	}
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil {
			continue
		}
		if d.Platform.OS == os && d.Platform.Architecture == arch && !IsIndex(d.MediaType) {
			return d, nil
		}
		have = append(have, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	return desc, fmt.Errorf("image is for %s, this machine is %s/%s", strings.Join(have, ", "), os, arch)
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
