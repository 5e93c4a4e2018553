package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/imageverifier"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
)

// pulls is asked by containerd before it pulls, when the name has been resolved
// to a digest and nothing has been fetched.
type pulls struct{ guard *Guard }

var _ imageverifier.ImageVerifier = (*pulls)(nil)

// VerifyImage judges what is to be pulled, and gets what may be from where it is
// quick to get.
func (p *pulls) VerifyImage(ctx context.Context, name string, desc ocispec.Descriptor) (*imageverifier.Judgement, error) {
	if err := p.guard.pulled(ctx, name, desc); err != nil {
		return &imageverifier.Judgement{Reason: err.Error()}, nil //nolint:nilerr // the error is the judgement
	}
	if s := p.guard.stack.Load(); s != nil && p.guard.cfg.Fetch != nil {
		_ = p.guard.cfg.Fetch(ctx, s.content, name, desc) // containerd gets what is missing, or says why not
	}
	return &imageverifier.Judgement{OK: true}, nil
}

// pulled first asks with what is here, then with what others have.
func (g *Guard) pulled(ctx context.Context, name string, desc ocispec.Descriptor) error {
	if !g.cfg.Gate.InForce() {
		return nil
	}
	ways := []verify.Image{{Name: name, Digests: []string{desc.Digest.String()}}}
	if g.passes(ways) || len(g.cfg.Sources) == 0 {
		return g.cfg.Gate.CheckAny(gate.Pull, ways)
	}
	var problems []error
	for _, source := range g.cfg.Sources {
		found, err := g.fetch(ctx, source, name, desc)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if ways = found; g.passes(ways) {
			break
		}
	}
	denied := g.cfg.Gate.CheckAny(gate.Pull, ways)
	if err := errors.Join(problems...); denied != nil && err != nil {
		return fmt.Errorf("%w; elsewhere signatures could not be looked for: %w", denied, err)
	}
	return denied
}

// passes says whether an image may run in one of these ways, and counts nothing.
func (g *Guard) passes(ways []verify.Image) bool {
	return slices.ContainsFunc(ways, func(w verify.Image) bool {
		v, err := g.cfg.Gate.Explain(w)
		return err == nil && (v == nil || v.Allowed)
	})
}

// fetch gets the signatures of an image and, if it is an index, of its manifests
// for this machine, and keeps them: the container will be judged by them too. It
// returns the ways in which the image could be allowed.
func (g *Guard) fetch(ctx context.Context, source Source, name string, desc ocispec.Descriptor) ([]verify.Image, error) {
	if err := g.collect(ctx, source, name, desc.Digest.String()); err != nil {
		return nil, err
	}
	if !images.IsIndexType(desc.MediaType) {
		return []verify.Image{{Name: name, Digests: []string{desc.Digest.String()}}}, nil
	}
	var out []verify.Image
	children, err := manifestsHere(ctx, source, name, desc.Digest)
	for _, c := range children {
		if err := g.collect(ctx, source, name, c); err != nil {
			return nil, err
		}
		out = append(out, verify.Image{Name: name, Digests: []string{desc.Digest.String(), c}})
	}
	return out, err
}

func (g *Guard) collect(ctx context.Context, source Source, name, of string) error {
	found, err := source.Collect(ctx, name, of)
	if found.Empty() {
		return err
	}
	return g.cfg.Gate.Keep(found)
}

// manifestsHere lists the manifests of an index for this machine.
func manifestsHere(ctx context.Context, source Source, name string, of digest.Digest) ([]string, error) {
	data, err := source.Manifest(ctx, name, of.String())
	if err != nil {
		return nil, err
	}
	if got := of.Algorithm().FromBytes(data); got != of {
		return nil, fmt.Errorf("a source sent %s instead of %s", got, of)
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
