package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/imageverifier"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/internal/cosign"
)

// pulls is asked by containerd before it pulls, when the name has been resolved
// to a digest and nothing has been fetched.
type pulls struct{ guard *Guard }

var _ imageverifier.ImageVerifier = (*pulls)(nil)

// VerifyImage judges what is to be pulled.
func (p *pulls) VerifyImage(ctx context.Context, name string, desc ocispec.Descriptor) (*imageverifier.Judgement, error) {
	if err := p.guard.pulled(ctx, name, desc); err != nil {
		return &imageverifier.Judgement{Reason: err.Error()}, nil //nolint:nilerr // the error is the judgement
	}
	return &imageverifier.Judgement{OK: true}, nil
}

// pulled first asks with what is here, then with what the registry has.
func (g *Guard) pulled(ctx context.Context, name string, desc ocispec.Descriptor) error {
	if !g.cfg.Gate.InForce() {
		return nil
	}
	image := verify.Image{Name: name, Digests: []string{desc.Digest.String()}}
	if v, err := g.cfg.Gate.Explain(image); err == nil && (v == nil || v.Allowed) || g.cfg.Registry == nil {
		return g.cfg.Gate.Check(gate.Pull, image)
	}
	ways, err := g.fetch(ctx, name, desc)
	if err == nil {
		return g.cfg.Gate.CheckAny(gate.Pull, ways)
	}
	if denied := g.cfg.Gate.Check(gate.Pull, image); denied != nil {
		return fmt.Errorf("%w; the registry was asked for signatures: %w", denied, err)
	}
	return nil
}

// fetch gets the signatures of an image and, if it is an index, of its manifests
// for this machine, and keeps them: the container will be judged by them too. It
// returns the ways in which the image could be allowed.
func (g *Guard) fetch(ctx context.Context, name string, desc ocispec.Descriptor) ([]verify.Image, error) {
	repository, err := g.cfg.Registry(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := g.collect(ctx, repository, desc.Digest.String()); err != nil {
		return nil, err
	}
	if !images.IsIndexType(desc.MediaType) {
		return []verify.Image{{Name: name, Digests: []string{desc.Digest.String()}}}, nil
	}
	var out []verify.Image
	children, err := manifestsHere(ctx, repository, desc.Digest)
	for _, c := range children {
		if err := g.collect(ctx, repository, c); err != nil {
			return nil, err
		}
		out = append(out, verify.Image{Name: name, Digests: []string{desc.Digest.String(), c}})
	}
	return out, err
}

func (g *Guard) collect(ctx context.Context, repository cosign.Repository, of string) error {
	found, err := cosign.Collect(ctx, repository, of)
	if found.Empty() {
		return err
	}
	return g.cfg.Gate.Keep(found)
}

// manifestsHere lists the manifests of an index for this machine.
func manifestsHere(ctx context.Context, repository cosign.Repository, of digest.Digest) ([]string, error) {
	data, err := repository.Manifest(ctx, of.String())
	if err != nil {
		return nil, err
	}
	if got := of.Algorithm().FromBytes(data); got != of {
		return nil, fmt.Errorf("the registry sent %s instead of %s", got, of)
	}
	var index document
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index %s: %w", of, err)
	}
	here := platforms.Default()
	var out []string
	for _, m := range index.Manifests {
		if m.Platform != nil && here.Match(*m.Platform) && len(out) < maxChildren {
			out = append(out, m.Digest.String())
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the index has no manifest for this machine")
	}
	return out, nil
}
