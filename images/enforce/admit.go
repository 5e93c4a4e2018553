package enforce

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
)

// Admit answers admission about an image that a pod names: the reference to run
// instead, which has a digest in place of the tag if this node knows it, or why
// the image may not run. What this node cannot know, because the image is not
// here, is left to the node that gets the pod.
func (g *Guard) Admit(ctx context.Context, image string) (string, error) {
	s := g.stack.Load()
	if !g.cfg.Gate.InForce() {
		return image, nil
	}
	ref, err := reference.ParseDockerRef(image)
	if err != nil || s == nil {
		return image, nil //nolint:nilerr // the API server and the kubelet say what is wrong with a name
	}
	ctx = inKubernetes(ctx)
	record, err := s.images.Get(ctx, ref.String())
	if err != nil {
		return image, g.admitUnseen(image, ref)
	}
	found, err := s.known.of(ctx, s.content, record.Target)
	if err != nil {
		return image, g.cfg.Gate.Refuse(gate.Admission, image, err)
	}
	if err := g.cfg.Gate.CheckAny(gate.Admission, candidates([]string{image}, found)); err != nil {
		return image, err
	}
	if _, tagged := ref.(reference.Digested); tagged {
		return image, nil
	}
	pinned := reference.TrimNamed(ref).String() + "@" + record.Target.Digest.String()
	if _, err := s.images.Get(ctx, pinned); err != nil {
		return image, nil //nolint:nilerr // the kubelet would try to pull a name that is not here
	}
	return pinned, nil
}

// admitUnseen refuses what no signature could make right.
func (g *Guard) admitUnseen(image string, ref reference.Named) error {
	unseen := verify.Image{Name: image, Digests: []string{""}}
	if d, ok := ref.(reference.Digested); ok {
		unseen.Digests[0] = d.Digest().String()
	}
	v, err := g.cfg.Gate.Explain(unseen)
	if err != nil {
		return g.cfg.Gate.Refuse(gate.Admission, image, err)
	}
	if v == nil || v.Allowed || !v.Settled() {
		return nil
	}
	return g.cfg.Gate.Refuse(gate.Admission, image, v.Err())
}

// Explain says what the policy says about an image that this node has; nil
// where the site has no policy.
func (g *Guard) Explain(ctx context.Context, image string) (*verify.Verdict, error) {
	s := g.stack.Load()
	if s == nil {
		return nil, errors.New("containerd is not running yet; see `bothy status`")
	}
	ref, err := reference.ParseDockerRef(image)
	if err != nil {
		return nil, fmt.Errorf("%q is not the name of an image: %w", image, err)
	}
	ctx = inKubernetes(ctx)
	record, err := s.images.Get(ctx, ref.String())
	if err != nil {
		return nil, fmt.Errorf("the node does not have %s: %w", ref, err)
	}
	found, err := s.known.of(ctx, s.content, record.Target)
	if err != nil {
		return nil, err
	}
	var last *verify.Verdict
	for _, way := range candidates([]string{image}, found) {
		if last, err = g.cfg.Gate.Explain(way); err != nil || last == nil || last.Allowed {
			break
		}
	}
	return last, err
}
