package signatures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/registry"
	"github.com/bothy-os/bothy/internal/cosign"
)

// maxAttached bounds one signature or attestation in a registry, in bytes.
const maxAttached = 8 << 20

// Registries finds signatures beside images, in their registries.
type Registries struct {
	// Client returns how registries are reached. It is asked for each image:
	// credentials and mirrors change while the node runs.
	Client func(context.Context) (*registry.Client, error)
}

// Collect returns what is attached to a digest of an image's repository.
func (r *Registries) Collect(ctx context.Context, image, of string) (*cosign.Signatures, error) {
	repository, err := r.repository(ctx, image)
	if err != nil {
		return nil, err
	}
	return cosign.Collect(ctx, repository, of)
}

// Manifest returns a manifest or index of an image's repository.
func (r *Registries) Manifest(ctx context.Context, image, of string) ([]byte, error) {
	repository, err := r.repository(ctx, image)
	if err != nil {
		return nil, err
	}
	return repository.Manifest(ctx, of)
}

func (r *Registries) repository(ctx context.Context, image string) (*registryRepository, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	client, err := r.Client(ctx)
	if err != nil {
		return nil, err
	}
	return &registryRepository{client: client, name: ref.Context().Name(), sizes: map[string]int64{}}, nil
}

// registryRepository reads one repository. It is not safe for concurrent use.
type registryRepository struct {
	client *registry.Client
	name   string
	// sizes are those of the blobs that the manifests read so far name.
	sizes map[string]int64
}

var _ cosign.Repository = (*registryRepository)(nil)

// Manifest implements [cosign.Repository].
func (r *registryRepository) Manifest(ctx context.Context, reference string) ([]byte, error) {
	data, err := r.client.Document(ctx, r.name, reference)
	if err != nil {
		return nil, known(err)
	}
	var m ocispec.Manifest
	if json.Unmarshal(data, &m) == nil { // else whoever asked finds out
		for _, l := range m.Layers {
			r.sizes[l.Digest.String()] = l.Size
		}
	}
	return data, nil
}

// Blob implements [cosign.Repository].
func (r *registryRepository) Blob(ctx context.Context, text string) ([]byte, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return nil, err
	}
	size, named := r.sizes[text]
	if !named || size < 0 || size > maxAttached {
		return nil, fmt.Errorf("the signature %s has %d bytes, the limit is %d MiB", text, size, maxAttached>>20)
	}
	body, err := r.client.Blob(ctx, r.name, ocispec.Descriptor{Digest: d, Size: size}, 0)
	if err != nil {
		return nil, known(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return data, known(err)
}

// Referrers implements [cosign.Repository].
func (r *registryRepository) Referrers(ctx context.Context, of, artifactType string) ([]string, error) {
	list, err := r.client.Referrers(ctx, r.name, digest.Digest(of))
	if err != nil {
		return nil, known(err)
	}
	var out []string
	for _, d := range list {
		switch d.ArtifactType {
		// Some registries show the type of the configuration instead.
		case artifactType, "", ocispec.MediaTypeEmptyJSON:
			out = append(out, d.Digest.String())
		}
	}
	return out, nil
}

// known translates a registry's "no such thing".
func known(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return cosign.ErrNotFound
	}
	return err
}
