package images

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/peer"
	"github.com/bothy-os/bothy/internal/supervise"
)

// MirrorComponent is the name of the component that gives images to other nodes.
const MirrorComponent = "image-mirror"

// Mirror is where other nodes of the site get images from this one.
type Mirror struct {
	// Address is what to listen on, such as 10.0.0.2:5443.
	Address string
	// TLS lets enrolled nodes in and nobody else, see [peer.Server].
	TLS *tls.Config
}

func (im *Images) mirrorComponent() supervise.Component {
	return supervise.Component{Name: MirrorComponent, After: im.cfg.After, Run: im.mirror}
}

func (im *Images) mirror(ctx context.Context, ready func()) error {
	target, closeTarget, err := im.connect(ctx)
	if err != nil {
		return err
	}
	defer closeTarget()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", im.cfg.Mirror.Address)
	if err != nil {
		return fmt.Errorf("listen for other nodes that want images: %w", err)
	}
	ready()
	server := &peer.Server{
		Images: keptImages{target.client.ImageService()}, Content: target.client.ContentStore(),
		TLS: im.cfg.Mirror.TLS, Log: im.cfg.Log,
	}
	return server.Serve(namespaces.WithNamespace(ctx, criNamespace), l)
}

// keptImages are those that the site's commits need, or a bundle brought.
type keptImages struct{ ctrdimages.Store }

// Find implements [peer.Images].
func (k keptImages) Find(ctx context.Context, name string) (ocispec.Descriptor, error) {
	img, err := k.Get(ctx, name)
	if err == nil && img.Labels[keptLabel] != keptValue {
		err = fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
	}
	return img.Target, err
}
