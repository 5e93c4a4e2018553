package cosign

import (
	"context"
	"errors"
)

// ErrNotFound is what a [Repository] returns for what it does not have.
var ErrNotFound = errors.New("not found")

// Repository is where an artifact and its signatures are. What it returns is
// believed in nothing: a lie leads to a refusal. It must bound what it reads.
type Repository interface {
	// Manifest returns a manifest by tag or digest.
	Manifest(ctx context.Context, reference string) ([]byte, error)
	// Blob returns the content of a layer by digest.
	Blob(ctx context.Context, digest string) ([]byte, error)
	// Referrers returns the digests of the manifests that refer to one. Those that
	// are known to be of another than the given artifact type may be left out.
	Referrers(ctx context.Context, digest, artifactType string) ([]string, error)
}

// manifest is the part of a manifest that signatures need.
type manifest struct {
	ArtifactType string  `json:"artifactType"`
	Layers       []layer `json:"layers"`
}

type layer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}
