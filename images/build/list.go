package build

import (
	"runtime"
	"slices"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
)

// Listed is one image or artifact of a layout, for `bothy image ls`.
type Listed struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// Type is what an artifact is, as a media type; empty for an image.
	Type string `json:"type,omitempty"`
	// Size is what its blobs take on disk, in bytes.
	Size int64 `json:"size"`
	// Problem says what is wrong with it, empty if nothing.
	Problem string `json:"problem,omitempty"`
}

// List returns the images and artifacts of the layout in layoutDir, without signatures, checking every blob. A
// missing directory is reported as fs.ErrNotExist.
func List(layoutDir string) ([]Listed, error) {
	l, err := layout.Open(layoutDir)
	if err != nil {
		return nil, err
	}
	var out []Listed
	for _, img := range slices.Concat(l.Images, l.Standalone()) {
		if isSignature(img.Name) {
			continue
		}
		entry := Listed{Name: img.Name, Digest: img.Descriptor.Digest.String()}
		if layout.IsArtifact(img.Descriptor) {
			entry.Type = img.Descriptor.ArtifactType
		}
		if err := l.Verify(img, "linux", runtime.GOARCH); err != nil {
			entry.Problem = err.Error()
		}
		if desc, m, err := l.Manifest(img.Descriptor, "linux", runtime.GOARCH); err == nil {
			entry.Size = desc.Size + m.Config.Size + layersSize(m.Layers)
		}
		out = append(out, entry)
	}
	return out, nil
}

func layersSize(layers []v1.Descriptor) int64 {
	var n int64
	for _, l := range layers {
		n += l.Size
	}
	return n
}
