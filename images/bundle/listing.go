package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
)

// Listing is what people see of a bundle, also as JSON.
type Listing struct {
	// Digest names the bundle: two with the same digest are the same.
	Digest     string   `json:"digest"`
	Commit     string   `json:"commit,omitempty"`
	Site       string   `json:"site,omitempty"`
	Platforms  []string `json:"platforms,omitempty"`
	Base       string   `json:"base,omitempty"`
	BaseCommit string   `json:"baseCommit,omitempty"`
	Images     []Listed `json:"images"`
	// Artifacts are there for their own sake and are no images to run: an operating system.
	Artifacts []Listed `json:"artifacts,omitempty"`
	// Size is what all blobs in the bundle take, in bytes.
	Size int64 `json:"size"`
}

// Listed is one image or artifact.
type Listed struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// Type is what an artifact is, as a media type; empty for an image.
	Type string `json:"type,omitempty"`
	// Size is what the image takes, Carried what of it is in this bundle and not
	// in its base, in bytes. Layers that images share count for each.
	Size    int64 `json:"size"`
	Carried int64 `json:"carried"`
	// Attached counts signatures, attestations and the like.
	Attached int `json:"attached"`
	// Problem says what is wrong with it.
	Problem string `json:"problem,omitempty"`
}

// tree is everything below a manifest.
type tree struct {
	// documents are manifests and configurations, layers the rest.
	documents, layers []ocispec.Descriptor
}

func (t *tree) all() []ocispec.Descriptor { return slices.Concat(t.documents, t.layers) }

// blobsOf follows an image or artifact down to its layers, without looking at
// those. Of a list, the images that are in the layout count; which ones must be
// is for wanted to say, if it is not nil.
func blobsOf(l *layout.Layout, desc ocispec.Descriptor, wanted func(ocispec.Descriptor) bool) (*tree, error) {
	data, err := l.ReadBlob(desc)
	if err != nil {
		return nil, err
	}
	t := &tree{documents: []ocispec.Descriptor{desc}}
	if !layout.IsIndex(desc.MediaType) {
		m, err := layout.DecodeManifest(data, desc)
		if err != nil {
			return nil, &layout.BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: err}
		}
		t.documents = append(t.documents, m.Config)
		t.layers = m.Layers
		return t, nil
	}
	index, err := layout.DecodeImageIndex(data, desc)
	if err != nil {
		return nil, &layout.BlobError{File: l.BlobPath(desc.Digest), Digest: desc.Digest, Err: err}
	}
	for _, d := range index.Manifests {
		if layout.IsIndex(d.MediaType) {
			continue // nobody looks for an image that deep
		}
		if _, err := os.Stat(l.BlobPath(d.Digest)); errors.Is(err, fs.ErrNotExist) && (wanted == nil || !wanted(d)) {
			continue
		}
		below, err := blobsOf(l, d, wanted)
		if err != nil {
			return nil, err
		}
		t.documents = append(t.documents, below.documents...)
		t.layers = append(t.layers, below.layers...)
	}
	return t, nil
}

// OpenDir opens a bundle, or any image layout, that is a directory.
func OpenDir(dir string) (*Index, error) {
	f, err := os.Open(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	defer f.Close()
	return DecodeIndex(f, dir)
}

// List lists the bundle in a directory without reading its layers.
func List(dir string) (*Listing, error) {
	i, err := OpenDir(dir)
	if err != nil {
		return nil, err
	}
	return i.List(), nil
}

// List lists a bundle whose blobs are on disk.
func (i *Index) List() *Listing {
	out := &Listing{Digest: i.Digest.String(), Commit: i.Commit, Site: i.Site, Base: i.Base, BaseCommit: i.BaseCommit}
	for _, p := range i.Platforms {
		out.Platforms = append(out.Platforms, platformText(p))
	}
	attached := i.attachments()
	counted := map[digest.Digest]bool{}
	for _, img := range i.Images {
		out.Images = append(out.Images, i.listed(img, attached))
	}
	for _, a := range i.Standalone() {
		out.Artifacts = append(out.Artifacts, i.listed(a, attached))
	}
	for _, img := range slices.Concat(i.Images, i.Artifacts) {
		t, err := blobsOf(i.Layout, img.Descriptor, nil)
		if err != nil {
			continue // it is said about the image, or by a check
		}
		for _, d := range t.all() {
			if !counted[d.Digest] && (Blobs{Dir: i.Dir}).Has(d) {
				out.Size += d.Size
			}
			counted[d.Digest] = true
		}
	}
	return out
}

func (i *Index) listed(img layout.Image, attached map[digest.Digest]int) Listed {
	entry := Listed{Name: img.Name, Digest: img.Descriptor.Digest.String()}
	if layout.IsArtifact(img.Descriptor) {
		entry.Type = img.Descriptor.ArtifactType
	}
	t, err := blobsOf(i.Layout, img.Descriptor, nil)
	if err != nil {
		entry.Problem = err.Error()
		return entry
	}
	for _, d := range t.all() {
		entry.Size += d.Size
		entry.Attached += attached[d.Digest]
		if (Blobs{Dir: i.Dir}).Has(d) {
			entry.Carried += d.Size
		} else if i.Base == "" && entry.Problem == "" {
			entry.Problem = fmt.Sprintf("blob %s is missing", d.Digest)
		}
	}
	return entry
}

// attachments counts what refers to each digest.
func (i *Index) attachments() map[digest.Digest]int {
	out := map[digest.Digest]int{}
	for _, a := range i.Artifacts {
		if s := a.Descriptor.Annotations[AnnotationSubject]; s != "" {
			out[digest.Digest(s)]++
		}
		if subject, ok := signedBy(a.Name); ok {
			out[subject]++
		}
	}
	return out
}

// Documents returns the manifests and configurations below an entry, as far as
// they can be read.
func Documents(l *layout.Layout, desc ocispec.Descriptor) []ocispec.Descriptor {
	t, err := blobsOf(l, desc, nil)
	if err != nil {
		return nil
	}
	return t.documents
}
