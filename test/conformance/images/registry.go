package images

import (
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// registryRoot is where agnhost's registry looks for what it serves.
const registryRoot = "var/registry"

// served is an image as agnhost's fake-registry-server expects it on disk: an
// index under its digest, the manifest and the blobs likewise, and a file named
// after the tag that holds the digest of the index.
func served(name, tag string, image v1.Image) (tree, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
	})
	manifests, blobs := path.Join(registryRoot, name, "manifests"), path.Join(registryRoot, name, "blobs")
	out := tree{}
	if err := serveIndex(out, manifests, tag, index); err != nil {
		return nil, err
	}
	if err := serveManifest(out, manifests, image); err != nil {
		return nil, err
	}
	return out, serveBlobs(out, blobs, image)
}

func serveIndex(t tree, dir, tag string, index v1.ImageIndex) error {
	data, err := index.RawManifest()
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	t.file(digestPath(dir, digest), 0o644, data)
	t.text(path.Join(dir, tag), digest.String()+"\n")
	return nil
}

func serveManifest(t tree, dir string, image v1.Image) error {
	data, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	t.file(digestPath(dir, digest), 0o644, data)
	return nil
}

func serveBlobs(t tree, dir string, image v1.Image) error {
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := image.ConfigName()
	if err != nil {
		return err
	}
	t.file(digestPath(dir, name), 0o644, config)
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := serveLayer(t, dir, l); err != nil {
			return err
		}
	}
	return nil
}

func serveLayer(t tree, dir string, l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	data, err := compressed(l)
	if err != nil {
		return err
	}
	t.file(digestPath(dir, digest), 0o644, data)
	return nil
}

// digestPath spreads blobs over directories named after their first two digits.
func digestPath(dir string, h v1.Hash) string {
	return path.Join(dir, h.Algorithm, h.Hex[:2], h.Hex, "data")
}
