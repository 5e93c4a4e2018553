package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/peer"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/supervise"
)

// MirrorComponent is the name of the component that gives images to other nodes.
const MirrorComponent = "image-mirror"

// Mirror is how this node gives images to the other nodes of the site, and gets
// them from there.
type Mirror struct {
	// Address is what to listen on, such as 10.0.0.2:5443, while the site has other
	// nodes.
	Address string
	// TLS and Enrolled let enrolled nodes in and nobody else, see [peer.Server].
	TLS      *tls.Config
	Enrolled func(*x509.Certificate) error
	// Signatures are what this node knows to be attached to a digest.
	Signatures func(digest string) (*cosign.Signatures, error)
	// Siblings are the other nodes.
	Siblings *peer.Siblings
}

func (im *Images) mirrorComponent() supervise.Component {
	return supervise.Component{Name: MirrorComponent, After: im.cfg.After, Run: im.mirror}
}

// mirror keeps containerd's configuration in step with the list of other nodes,
// and serves while there is one.
func (im *Images) mirror(ctx context.Context, ready func()) error {
	target, closeTarget, err := im.connect(ctx)
	if err != nil {
		return err
	}
	defer closeTarget()
	ctx, stop := context.WithCancel(ctx)
	m := &mirror{Mirror: im.cfg.Mirror, failed: make(chan error, 1), end: func() {}, server: &peer.Server{
		Images: keptImages{target.client.ImageService()}, Content: target.client.ContentStore(),
		TLS: im.cfg.Mirror.TLS, Enrolled: im.cfg.Mirror.Enrolled, Signatures: im.cfg.Mirror.Signatures, Log: im.cfg.Log,
	}}
	defer m.serving.Wait()
	defer stop()
	// Watching begins before the first look, so that nothing falls between.
	changed, watching := make(chan struct{}, 1), make(chan error, 1)
	go func() { watching <- im.cfg.Store.Watch(ctx, changed, peer.NodesFile) }()
	for {
		if err := m.follow(ctx, filepath.Join(im.cfg.Store.Dir(), peer.NodesFile)); err != nil {
			return err
		}
		ready()
		select {
		case <-ctx.Done():
			return nil
		case err := <-watching:
			return err
		case err := <-m.failed:
			return err
		case <-changed:
		}
	}
}

// mirror is a mirror at work.
type mirror struct {
	*Mirror
	server  *peer.Server
	serving sync.WaitGroup
	failed  chan error
	// end stops serving; open says whether there is anything to stop.
	end  func()
	open bool
}

// follow brings it in step with the list of other nodes.
func (m *mirror) follow(ctx context.Context, file string) error {
	_, others, err := peer.ReadNodes(file)
	if err != nil {
		return err
	}
	if err := m.Siblings.Configure(); err != nil {
		return fmt.Errorf("tell containerd which nodes to ask for images: %w", err)
	}
	if others == m.open {
		return nil
	}
	m.end()
	m.serving.Wait()
	m.open = others
	if !others {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", m.Address)
	if err != nil {
		return fmt.Errorf("listen for other nodes that want images: %w", err)
	}
	ctx, m.end = context.WithCancel(ctx)
	ctx = namespaces.WithNamespace(ctx, criNamespace)
	m.serving.Go(func() {
		if err := m.server.Serve(ctx, l); err != nil {
			m.failed <- err
		}
	})
	return nil
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
