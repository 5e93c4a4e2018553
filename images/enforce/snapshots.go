package enforce

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
)

// guarded guards the snapshotters that clients of containerd see. containerd
// itself unpacks images beside them.
func (g *Guard) guarded(all map[string]snapshots.Snapshotter) map[string]snapshots.Snapshotter {
	out := make(map[string]snapshots.Snapshotter, len(all))
	for name, s := range all {
		out[name] = &snapshotter{Snapshotter: s, guard: g}
	}
	return out
}

// snapshotter gives out the files of images only if they may be used: for the
// root of a container, and for volumes that are images.
type snapshotter struct {
	snapshots.Snapshotter
	guard *Guard
}

func (s *snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.guard.files(ctx, key, parent); err != nil {
		return nil, err
	}
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	if err == nil && becomesLayer(key) && s.guard.cfg.Gate.InForce() {
		s.guard.making.begin(key, parent, mounts)
	}
	return mounts, err
}

func (s *snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.guard.files(ctx, key, parent); err != nil {
		return nil, err
	}
	return s.Snapshotter.View(ctx, key, parent, opts...)
}

// Commit makes a layer of what was unpacked, if it is what its name says.
func (s *snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if bareID.MatchString(name) && s.guard.cfg.Gate.InForce() {
		if err := s.guard.making.committed(name, key); err != nil {
			return nativelyDenied(s.guard.cfg.Gate.Refuse(gate.Layer, name, err))
		}
	}
	return s.Snapshotter.Commit(ctx, name, key, opts...)
}

// files judges a snapshot on top of an image's layers. An empty one has no
// files, and one that becomes a layer is judged with its image.
func (g *Guard) files(ctx context.Context, key, parent string) error {
	if parent == "" || becomesLayer(key) || !g.cfg.Gate.InForce() {
		return nil
	}
	ways, err := g.stack.Load().withChain(ctx, parent)
	if err != nil {
		return err
	}
	if len(ways) == 0 {
		return nativelyDenied(g.cfg.Gate.Refuse(gate.Volume, parent, fmt.Errorf("image policy: %s are the layers of no image that containerd knows by a name", parent)))
	}
	return nativelyDenied(g.cfg.Gate.CheckAny(gate.Volume, ways))
}

// withChain returns the ways in which an image with these layers could be
// allowed.
func (s *stack) withChain(ctx context.Context, chain string) ([]verify.Image, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []verify.Image
	for _, image := range all {
		if bareID.MatchString(image.Name) {
			continue
		}
		found, err := s.known.of(ctx, s.content, image.Target)
		if err != nil {
			continue // another image's content is missing or no image: it has no say here
		}
		for _, v := range found {
			if v.chain == chain {
				out = append(out, verify.Image{Name: image.Name, Digests: v.digests})
			}
		}
	}
	return out, nil
}
