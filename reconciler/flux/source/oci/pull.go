package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pulled is the layer of an artifact that the object selects.
type pulled struct {
	annotations map[string]string // of the manifest
	mediaType   string
	digest      string
	content     []byte
}

// pull fetches the layer of a manifest. Manifest and layer have the digests that
// name them, or it is an error.
func (a *attempt) pull(ctx context.Context, registry *access, digest string) (*pulled, error) {
	descriptor, err := remote.Get(registry.repository.Digest(digest), registry.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("fetch %s@%s: %w", registry.repository, digest, err)
	}
	image, err := descriptor.Image()
	if err != nil {
		return nil, fmt.Errorf("fetch %s@%s: %w", registry.repository, digest, err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return nil, fmt.Errorf("fetch %s@%s: %w", registry.repository, digest, err)
	}
	chosen, err := choose(manifest.Layers, a.obj.GetLayerMediaType())
	if err != nil {
		return nil, &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.OCILayerOperationFailedReason, message: err.Error()}
	}
	if chosen.Size > maxContent {
		return nil, fmt.Errorf("the layer %s has %d bytes, and the limit is %d MiB", chosen.Digest, chosen.Size, maxContent>>20)
	}
	layer, err := image.LayerByDigest(chosen.Digest)
	if err != nil {
		return nil, fmt.Errorf("fetch layer %s: %w", chosen.Digest, err)
	}
	content, err := read(layer)
	if err != nil {
		return nil, fmt.Errorf("fetch layer %s: %w", chosen.Digest, err)
	}
	if got := digestOf(content); got != chosen.Digest.String() {
		return nil, fmt.Errorf("the registry sent %s for layer %s", got, chosen.Digest)
	}
	return &pulled{annotations: manifest.Annotations, mediaType: string(chosen.MediaType), digest: chosen.Digest.String(), content: content}, nil
}

func read(layer v1.Layer) (content []byte, err error) {
	body, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return io.ReadAll(io.LimitReader(body, maxContent+1))
}

// choose returns the first layer, or the first of a media type.
func choose(layers []v1.Descriptor, mediaType string) (v1.Descriptor, error) {
	var there []string
	for _, l := range layers {
		if mediaType == "" || string(l.MediaType) == mediaType {
			return l, nil
		}
		there = append(there, string(l.MediaType))
	}
	if len(there) == 0 {
		return v1.Descriptor{}, errors.New("the artifact has no layers")
	}
	return v1.Descriptor{}, fmt.Errorf("the artifact has no layer of type %s; it has %s", mediaType, strings.Join(there, ", "))
}

// open shows the content of a layer: what is in the archive or, for a layer that
// is to be copied and is no archive, one file.
func open(content []byte, operation string) (*files, error) {
	unpacked, err := unpack(content)
	if err == nil || operation != sourcev1.OCILayerCopy || errors.Is(err, errTooLarge) || isArchive(content) {
		return unpacked, err
	}
	return newFiles(map[string][]byte{"layer": content})
}

// isArchive reports whether content claims to be a compressed or plain archive.
func isArchive(content []byte) bool {
	const magic = 257
	return strings.HasPrefix(string(content[:min(len(content), 2)]), "\x1f\x8b") ||
		len(content) > magic+5 && string(content[magic:magic+5]) == "ustar"
}
