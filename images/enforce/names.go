package enforce

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
)

// bareID is a name that the CRI gives to images, and no reference: what runs
// under it is judged by the image's other names.
var bareID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// names guards the names of images.
type names struct {
	imagesapi.ImagesClient
	guard *Guard
}

// Create refuses a name under which the image could not run.
func (n *names) Create(ctx context.Context, req *imagesapi.CreateImageRequest, opts ...grpc.CallOption) (*imagesapi.CreateImageResponse, error) {
	if err := n.guard.named(ctx, req.GetImage()); err != nil {
		return nil, err
	}
	return n.ImagesClient.Create(ctx, req, opts...)
}

// Update refuses to move a name to such an image.
func (n *names) Update(ctx context.Context, req *imagesapi.UpdateImageRequest, opts ...grpc.CallOption) (*imagesapi.UpdateImageResponse, error) {
	if err := n.guard.named(ctx, req.GetImage()); err != nil {
		return nil, err
	}
	return n.ImagesClient.Update(ctx, req, opts...)
}

func (g *Guard) named(ctx context.Context, image *imagesapi.Image) error {
	if image == nil || image.Target == nil || bareID.MatchString(image.Name) || !g.cfg.Gate.InForce() {
		return nil
	}
	target := ocispec.Descriptor{Digest: digest.Digest(image.Target.Digest), Size: image.Target.Size}
	s := g.stack.Load()
	found, err := s.known.of(ctx, s.content, target)
	if errors.Is(err, errNoImage) {
		return nil // a signature, or a document: it cannot run
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return denied(g.cfg.Gate.Refuse(gate.Record, image.Name, err))
	}
	if len(found) == 0 { // its content is not here yet, as in the middle of a pull
		found = []variant{{digests: []string{image.Target.Digest}}}
	}
	return denied(g.cfg.Gate.CheckAny(gate.Record, candidates([]string{image.Name}, found)))
}

// candidates are the ways in which an image could be allowed.
func candidates(names []string, found []variant) []verify.Image {
	var out []verify.Image
	for _, n := range names {
		for _, v := range found {
			out = append(out, verify.Image{Name: n, Digests: v.digests})
		}
	}
	return out
}

// denied makes the answer of an API of a reason.
func denied(why error) error {
	if why == nil {
		return nil
	}
	return status.Error(codes.PermissionDenied, why.Error())
}

// nativelyDenied is denied for callers that take Go's errors.
func nativelyDenied(why error) error {
	if why == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", why, errdefs.ErrPermissionDenied)
}
