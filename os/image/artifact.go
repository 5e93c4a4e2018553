package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of the OCI artifact that an update is.
const (
	MediaTypeConfig   types.MediaType = "application/vnd.bothy.os.config.v1+json"
	MediaTypeBootFile types.MediaType = "application/vnd.bothy.os.uki.v1"
	MediaTypeRoot     types.MediaType = "application/vnd.bothy.os.root.v1"
	MediaTypeSBOM     types.MediaType = "application/spdx+json"
)

// Annotations of its manifest, for people and for whoever decides before it is fetched; what
// counts is what is inside.
const (
	AnnotationVersion = "dev.bothy.os.version"
	AnnotationFlavour = "dev.bothy.os.flavour"
)

// writeArtifact writes boot file, root file system and SBOM as an OCI layout. The boot file is
// the one that is on the disks: signed, if there are keys.
func (b *builder) writeArtifact(r *Result, bootFile []byte) (*Artifact, error) {
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, MediaTypeConfig), types.OCIManifestSchema1)
	size := int64(0)
	for _, l := range []struct {
		ending string
		kind   types.MediaType
	}{{".efi", MediaTypeBootFile}, {".root", MediaTypeRoot}, {".spdx.json", MediaTypeSBOM}} {
		data := bootFile
		if l.kind != MediaTypeBootFile {
			var err error
			if data, err = os.ReadFile(b.path(l.ending)); err != nil {
				return nil, err
			}
		}
		size += int64(len(data))
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer(data, l.kind), MediaType: l.kind,
			Annotations: map[string]string{"org.opencontainers.image.title": filepath.Base(b.path(l.ending))},
		})
		if err != nil {
			return nil, err
		}
	}
	artifact, ok := mutate.Annotations(img, map[string]string{
		AnnotationVersion: r.Version, AnnotationFlavour: r.Flavour, "dev.bothy.os.kernel": r.Kernel,
		"dev.bothy.os.root-hash": r.RootHash, "dev.bothy.os.blocks": fmt.Sprint(r.Blocks),
		"org.opencontainers.image.created": r.Time.Format(time.RFC3339),
	}).(v1.Image)
	if !ok {
		return nil, errors.New("an annotated image is no image")
	}
	dir := b.path(".oci")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, err
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.opts.Version})
	if err := to.AppendImage(artifact, name); err != nil {
		return nil, err
	}
	digest, err := artifact.Digest()
	return &Artifact{Name: filepath.Base(dir), Size: size, Digest: digest.String()}, err
}
