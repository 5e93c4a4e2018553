package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxManifest bounds indexes, manifests and configurations, in bytes.
	maxManifest = 8 << 20
	// maxKnown bounds how many images are remembered, maxChildren the manifests
	// of an index that are looked at.
	maxKnown    = 4096
	maxChildren = 64
)

// errNoImage is about a manifest of something else, such as a signature.
var errNoImage = errors.New("it is not an image that could run")

// variant is one manifest that an image may run as on this machine.
type variant struct {
	// digests stand for it: that of the index, if there is one, and its own.
	digests []string
	// chain names the snapshot with all its layers.
	chain string
}

// variants remembers what images are made of. Content is addressed by its hash,
// so that what was true of a digest stays true.
type variants struct {
	mu    sync.Mutex
	known map[digest.Digest][]variant
}

func newVariants() *variants { return &variants{known: map[digest.Digest][]variant{}} }

// of reads what an image is made of, and hashes all that it reads: whoever can
// write to the disk must not be able to swap a manifest.
func (v *variants) of(ctx context.Context, store content.Provider, target ocispec.Descriptor) ([]variant, error) {
	v.mu.Lock()
	got, ok := v.known[target.Digest]
	v.mu.Unlock()
	if ok {
		return got, nil
	}
	got, err := readVariants(ctx, store, target)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", target.Digest, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxKnown {
		clear(v.known)
	}
	v.known[target.Digest] = got
	return got, nil
}

// document is an index or a manifest: it tells by its content which.
type document struct {
	MediaType string               `json:"mediaType"`
	Config    *ocispec.Descriptor  `json:"config"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

func readVariants(ctx context.Context, store content.Provider, target ocispec.Descriptor) ([]variant, error) {
	var top document
	if err := read(ctx, store, target, &top); err != nil {
		return nil, err
	}
	if top.Config != nil && len(top.Manifests) > 0 {
		return nil, errors.New("its manifest is an index as well, which lets two readers see two images")
	}
	if top.Config != nil {
		chain, err := chainOf(ctx, store, top.Config)
		if err != nil {
			return nil, err
		}
		return []variant{{digests: []string{target.Digest.String()}, chain: chain}}, nil
	}
	return readIndex(ctx, store, target, top.Manifests)
}

func readIndex(ctx context.Context, store content.Provider, target ocispec.Descriptor, children []ocispec.Descriptor) ([]variant, error) {
	if len(children) > maxChildren {
		return nil, fmt.Errorf("its index has %d manifests, the limit is %d", len(children), maxChildren)
	}
	here := platforms.Default()
	var out []variant
	var missing error
	for _, c := range children {
		if c.Platform != nil && !here.Match(*c.Platform) {
			continue
		}
		var m document
		err := read(ctx, store, c, &m)
		if errdefs.IsNotFound(err) {
			missing = err // of a machine of another kind, or not pulled
			continue
		}
		if err != nil {
			return nil, err
		}
		if m.Config == nil {
			continue
		}
		chain, err := chainOf(ctx, store, m.Config)
		if errors.Is(err, errNoImage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, variant{digests: []string{target.Digest.String(), c.Digest.String()}, chain: chain})
	}
	if len(out) > 0 {
		return out, nil
	}
	if missing != nil {
		return nil, missing
	}
	return nil, errNoImage
}

// chainOf computes the name of the snapshot from the layers that a configuration
// lists.
func chainOf(ctx context.Context, store content.Provider, config *ocispec.Descriptor) (string, error) {
	if !images.IsConfigType(config.MediaType) {
		return "", fmt.Errorf("%w: its configuration is %s", errNoImage, config.MediaType)
	}
	var image ocispec.Image
	if err := read(ctx, store, *config, &image); err != nil {
		return "", err
	}
	return identity.ChainID(image.RootFS.DiffIDs).String(), nil
}

// read decodes a blob after hashing it.
func read(ctx context.Context, store content.Provider, d ocispec.Descriptor, into any) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	r, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: d.Digest, Size: d.Size})
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Size() > maxManifest {
		return fmt.Errorf("blob %s: %d bytes is too large for a manifest", d.Digest, r.Size())
	}
	data := make([]byte, r.Size())
	if n, err := r.ReadAt(data, 0); n < len(data) {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return fmt.Errorf("blob %s: its content hashes to %s: somebody changed it on the disk; remove the image and import it again", d.Digest, got)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return nil
}
