package agent

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/bothy-os/bothy/images/needs"
	"github.com/bothy-os/bothy/images/store"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

// nodeImages is the node's store of images, as both processes see it.
func nodeImages() *store.Store {
	return store.New(filepath.Join(boot.StateDir, "images"), filepath.Join(boot.StateDir, "containerd", "io.containerd.content.v1.content"))
}

// withStore are the places with signatures: the layouts of the machine, and the
// store, which has those of bundles.
func withStore(layouts []string) []string {
	return append(slices.Clone(layouts), nodeImages().Dir())
}

// pinsComponent tells the store of images what each accepted commit needs.
// `bothy kube`, where containerd is, follows the store.
func (h *hall) pinsComponent() supervise.Component {
	return supervise.Component{Name: "image-pins", Run: func(ctx context.Context, ready func()) error {
		ready()
		noted := ""
		for {
			snap, accepted := h.reconciler.Accepted()
			if snap != nil && snap.Commit != noted {
				if err := h.pin(ctx, snap); err != nil {
					return err
				}
				noted = snap.Commit
			}
			select {
			case <-accepted:
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

func (h *hall) pin(ctx context.Context, snap *reconciler.Snapshot) error {
	images := nodeImages()
	pins, err := images.Pins()
	if err != nil {
		return err
	}
	if pins.Current != nil && pins.Current.Commit == snap.Commit {
		return nil // the agent was started again
	}
	rendered, err := reconciler.Render(ctx, snap.Files, snap.Path)
	if err != nil {
		// What cannot be built cannot be applied either: the images of what runs
		// stay, and the status of the commit says what is wrong.
		h.log.Warn("images of the commit are not known", "commit", snap.Commit, "err", err)
		return ctx.Err()
	}
	found := needs.Of(rendered.Objects)
	for _, p := range append(found.Problems, rendered.Problems...) {
		h.log.Info("images may not be kept", "commit", snap.Commit, "reason", p)
	}
	return images.Advance(store.Pin{Commit: snap.Commit, Images: found.References, Artifacts: h.artifactsOf(snap)})
}

// artifactsOf are what a commit names and no container runs: the operating system, if a bundle brought it.
func (h *hall) artifactsOf(snap *reconciler.Snapshot) []string {
	s, err := decodeSite(snap, h.boot.Repository.Path, h.env.Name)
	if err != nil || s.os.Image == "" {
		return nil // a commit that cannot be decoded is not accepted
	}
	return []string{s.os.Image}
}
