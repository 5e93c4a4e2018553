package cosign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// maxManifest and maxBlob bound manifests and signatures, in bytes.
	maxManifest = 4 << 20
	maxBlob     = 1 << 20
)

// Remote reads a repository of a registry.
func Remote(repository name.Repository, options ...remote.Option) Repository {
	return &remoteRepository{repository: repository, options: options}
}

type remoteRepository struct {
	repository name.Repository
	options    []remote.Option
}

func (r *remoteRepository) with(ctx context.Context, more ...remote.Option) []remote.Option {
	return append(append(r.options[:len(r.options):len(r.options)], remote.WithContext(ctx)), more...)
}

func (r *remoteRepository) Manifest(ctx context.Context, reference string) ([]byte, error) {
	var ref name.Reference = r.repository.Tag(reference)
	if isDigest(reference) {
		ref = r.repository.Digest(reference)
	}
	descriptor, err := remote.Get(ref, r.with(ctx)...)
	if err != nil {
		return nil, found(err)
	}
	if len(descriptor.Manifest) > maxManifest {
		return nil, fmt.Errorf("the manifest %s is larger than %d MiB", reference, maxManifest>>20)
	}
	return descriptor.Manifest, nil
}

func (r *remoteRepository) Blob(ctx context.Context, digest string) ([]byte, error) {
	l, err := remote.Layer(r.repository.Digest(digest), r.with(ctx)...)
	if err != nil {
		return nil, found(err)
	}
	content, err := l.Compressed()
	if err != nil {
		return nil, found(err)
	}
	defer content.Close()
	data, err := io.ReadAll(io.LimitReader(content, maxBlob+1))
	if err == nil && len(data) > maxBlob {
		err = fmt.Errorf("the signature %s is larger than %d MiB", digest, maxBlob>>20)
	}
	return data, err
}

func (r *remoteRepository) Referrers(ctx context.Context, digest, artifactType string) ([]string, error) {
	index, err := remote.Referrers(r.repository.Digest(digest), r.with(ctx)...)
	if err != nil {
		return nil, found(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range list.Manifests {
		switch d.ArtifactType {
		// Some registries show the type of the configuration instead.
		case artifactType, "", emptyConfig:
			out = append(out, d.Digest.String())
		}
	}
	return out, nil
}

// emptyConfig is the type of the configuration of what is not an image.
const emptyConfig = "application/vnd.oci.empty.v1+json"

// found translates a registry's "no such thing".
func found(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return ErrNotFound
	}
	return err
}
