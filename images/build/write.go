package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
)

// writer keeps an OCI layout directory.
type writer struct {
	dir   string
	index v1.IndexManifest
}

func openWriter(dir string) (*writer, error) {
	w := &writer{dir: dir, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
	data, err := os.ReadFile(w.indexPath())
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	if err := json.Unmarshal(data, &w.index); err != nil {
		return nil, fmt.Errorf("image layout %s is not an OCI index: %w; remove the directory and build again", w.indexPath(), err)
	}
	return w, nil
}

func (w *writer) indexPath() string { return filepath.Join(w.dir, ocispec.ImageIndexFile) }

// put stores an image under a name and reports whether that changed anything.
func (w *writer) put(name string, image v1.Image) (bool, error) {
	digest, err := image.Digest()
	if err != nil {
		return false, err
	}
	i := w.find(name)
	if i >= 0 && w.index.Manifests[i].Digest == digest && w.complete(image) {
		return false, nil
	}
	// WriteImage puts each blob in place by rename; index.json comes last.
	if err := durable.MkdirAll(w.dir, 0o755); err != nil {
		return false, err
	}
	if err := gcrlayout.Path(w.dir).WriteImage(image); err != nil {
		return false, fmt.Errorf("write blobs to %s: %w", w.dir, err)
	}
	desc, err := partial.Descriptor(image)
	if err != nil {
		return false, err
	}
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	if i < 0 {
		w.index.Manifests = append(w.index.Manifests, *desc)
	} else {
		w.index.Manifests[i] = *desc
	}
	return true, w.save()
}

// keepOnly drops all images that are not listed.
func (w *writer) keepOnly(images []Image) error {
	before := len(w.index.Manifests)
	w.index.Manifests = slices.DeleteFunc(w.index.Manifests, func(d v1.Descriptor) bool {
		name := d.Annotations[ocispec.AnnotationRefName]
		return !isSignature(name) && !slices.ContainsFunc(images, func(i Image) bool { return i.Name == name })
	})
	w.dropSignatures()
	if len(w.index.Manifests) == before {
		return nil
	}
	return w.save()
}

// dropSignatures drops those of digests that no image has any more.
func (w *writer) dropSignatures() {
	signed := map[string]bool{}
	for _, d := range w.index.Manifests {
		signed[d.Digest.Algorithm+"-"+d.Digest.Hex] = true
	}
	w.index.Manifests = slices.DeleteFunc(w.index.Manifests, func(d v1.Descriptor) bool {
		m := attachment.FindStringSubmatch(d.Annotations[ocispec.AnnotationRefName])
		return m != nil && !signed[m[1]]
	})
}

// save writes the index and then removes the blobs nothing refers to any more.
func (w *writer) save() error {
	data, err := json.MarshalIndent(w.index, "", "  ")
	if err != nil {
		return err
	}
	marker := []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}` + "\n")
	if _, err := durable.WriteFileIfChanged(filepath.Join(w.dir, ocispec.ImageLayoutFile), marker, 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(w.indexPath(), append(data, '\n'), 0o644); err != nil {
		return err
	}
	unused, err := gcrlayout.Path(w.dir).GarbageCollect()
	if err != nil {
		return fmt.Errorf("find unused blobs in %s: %w", w.dir, err)
	}
	for _, h := range unused {
		if err := gcrlayout.Path(w.dir).RemoveBlob(h); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove unused blob: %w", err)
		}
	}
	return nil
}

func (w *writer) find(name string) int {
	return slices.IndexFunc(w.index.Manifests, func(d v1.Descriptor) bool {
		return d.Annotations[ocispec.AnnotationRefName] == name
	})
}

// complete reports whether all blobs of an image are in the layout, judged by
// size: enough to notice a directory that was tidied by hand.
func (w *writer) complete(image v1.Image) bool {
	m, err := image.Manifest()
	if err != nil {
		return false
	}
	self, err := partial.Descriptor(image)
	if err != nil {
		return false
	}
	for _, d := range append([]v1.Descriptor{*self, m.Config}, m.Layers...) {
		st, err := os.Stat(filepath.Join(w.dir, ocispec.ImageBlobsDir, d.Digest.Algorithm, d.Digest.Hex))
		if err != nil || st.Size() != d.Size {
			return false
		}
	}
	return true
}
