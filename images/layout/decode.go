package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's formats, which mean the same as OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// maxLayers bounds the layers of an image; overlayfs mounts fewer.
const maxLayers = 500

// IsIndex reports whether a media type is that of a list of platforms.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

// IsManifest reports whether a media type is that of an image or an artifact.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

var signatureTag = regexp.MustCompile(`:sha256-[0-9a-f]{64}(\.[a-z]+)?$`)

// IsSignatureTag reports whether a reference is one that tools attach
// signatures with: sha256-<hex>.sig, .att, .sbom, or sha256-<hex> alone, the tag
// that lists referrers where a registry does not.
func IsSignatureTag(reference string) bool { return signatureTag.MatchString(reference) }

// IsArtifact reports whether an entry of an index is a signature, or something
// else that is no image to run. Some tools write the type of an image's
// configuration where the type of an artifact belongs.
func IsArtifact(d ocispec.Descriptor) bool {
	switch d.ArtifactType {
	case "", ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
		return IsSignatureTag(d.Annotations[ocispec.AnnotationRefName])
	}
	return true
}

// IsStandalone reports whether an entry of an index is there for its own sake: an image, or an artifact
// with a name by which nothing is attached to another.
func IsStandalone(d ocispec.Descriptor) bool {
	name := d.Annotations[ocispec.AnnotationRefName]
	return !IsArtifact(d) || name != "" && !IsSignatureTag(name)
}

// document has the fields by which a manifest and an index are told apart.
type document struct {
	MediaType string          `json:"mediaType"`
	Config    json.RawMessage `json:"config"`
	Layers    json.RawMessage `json:"layers"`
	Manifests json.RawMessage `json:"manifests"`
}

// checkDocument refuses content that could be read as something else than the
// descriptor says: then two programs would see two images under one digest.
func checkDocument(data []byte, desc ocispec.Descriptor, index bool) error {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	if d.MediaType != "" && d.MediaType != desc.MediaType {
		return fmt.Errorf("it says that it is %q, what refers to it says %q", d.MediaType, desc.MediaType)
	}
	if index && (d.Config != nil || d.Layers != nil) || !index && d.Manifests != nil {
		return errors.New("it is an image and a list of images at once")
	}
	return nil
}

// DecodeManifest decodes the image manifest that desc refers to.
func DecodeManifest(data []byte, desc ocispec.Descriptor) (*ocispec.Manifest, error) {
	fail := func(err error) (*ocispec.Manifest, error) { return nil, fmt.Errorf("not a manifest: %w", err) }
	if err := checkDocument(data, desc, false); err != nil {
		return fail(err)
	}
	m := &ocispec.Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return fail(err)
	}
	if len(m.Layers) > maxLayers {
		return fail(fmt.Errorf("it has %d layers, more than %d", len(m.Layers), maxLayers))
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return fail(err)
		}
	}
	return m, nil
}

// DecodeImageIndex decodes the list of platforms that desc refers to.
func DecodeImageIndex(data []byte, desc ocispec.Descriptor) (*ocispec.Index, error) {
	fail := func(err error) (*ocispec.Index, error) { return nil, fmt.Errorf("not an index: %w", err) }
	if err := checkDocument(data, desc, true); err != nil {
		return fail(err)
	}
	index := &ocispec.Index{}
	if err := json.Unmarshal(data, index); err != nil {
		return fail(err)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return fail(err)
		}
	}
	return index, nil
}

// checkDescriptor refuses what cannot be used as a file name or a length.
// Another algorithm than SHA-256 is refused, as nothing else is in use.
func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: only sha256 is supported", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has the size %d", d.Digest, d.Size)
	}
	return nil
}

// checkName refuses a name with the digest of something else: who asks for what hashes to that would get
// another content.
func checkName(name string, d ocispec.Descriptor) error {
	if _, said, ok := strings.Cut(name, "@"); ok && said != d.Digest.String() {
		return fmt.Errorf("its digest is %s, and it is called by another", d.Digest)
	}
	return nil
}

// checkPlatform compares the platform that an index promises with that of the
// image itself. Without a platform in the descriptor, there is no promise.
func (l *Layout) checkPlatform(desc ocispec.Descriptor, m *ocispec.Manifest) error {
	if desc.Platform == nil || !strings.Contains(m.Config.MediaType, "image") {
		return nil
	}
	data, err := l.ReadBlob(m.Config)
	if err != nil {
		return err
	}
	var is ocispec.Platform
	if err := json.Unmarshal(data, &is); err != nil {
		return &BlobError{File: l.BlobPath(m.Config.Digest), Digest: m.Config.Digest, Err: fmt.Errorf("not an image configuration: %w", err)}
	}
	said := desc.Platform
	if is.OS != "" && is.OS != said.OS || is.Architecture != "" && is.Architecture != said.Architecture {
		return &BlobError{
			File: l.BlobPath(desc.Digest), Digest: desc.Digest,
			Err: fmt.Errorf("the image is for %s/%s, its index says %s/%s", is.OS, is.Architecture, said.OS, said.Architecture),
		}
	}
	return nil
}
