package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/store"
)

// KeeperComponent is the name of the component that keeps images.
const KeeperComponent = "image-keeper"

// settle is how long changes are gathered: pulling one image is several.
const settle = 200 * time.Millisecond

// keep brings containerd into the state that the store and the pins ask for,
// now and after each change of either. It asks nobody in between.
func (im *Images) keep(ctx context.Context, ready func()) error {
	target, closeTarget, err := im.connect(ctx)
	if err != nil {
		return err
	}
	defer closeTarget()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Listening begins before the first look, so that nothing falls between.
	happened, lost := target.client.EventService().Subscribe(ctx,
		`namespace==k8s.io,topic=="/images/create"`, `namespace==k8s.io,topic=="/images/update"`, `namespace==k8s.io,topic=="/images/delete"`)
	changed, watching := make(chan struct{}, 1), make(chan error, 1)
	go func() { watching <- im.cfg.Store.Watch(ctx, changed, im.cfg.JudgedBy) }()
	for {
		wanted, err := im.pass(ctx, target)
		if err != nil {
			return err
		}
		ready()
		for worth := false; !worth; {
			select {
			case <-ctx.Done():
				return nil
			case err := <-lost:
				return fmt.Errorf("containerd's events: %w", err)
			case err := <-watching:
				return err
			case <-changed:
				worth = true
			case e := <-happened:
				worth = concerns(e, wanted)
			}
		}
		if !quiet(ctx, settle) {
			return nil
		}
	}
}

// quiet waits and reports whether ctx goes on.
func quiet(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// concerns reports whether an event is about an image that is to be kept.
func concerns(e *events.Envelope, wanted map[string]bool) bool {
	if e == nil {
		return false
	}
	what, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return true // to look once too often does no harm
	}
	switch what := what.(type) {
	case *apievents.ImageCreate:
		return wanted[what.Name]
	case *apievents.ImageUpdate:
		return wanted[what.Name]
	case *apievents.ImageDelete:
		return wanted[what.Name]
	}
	return false
}

// pass makes containerd have, pinned, all that the node's layouts, its store
// and the site's commits ask for, and lets go of the rest. It returns the names.
func (im *Images) pass(ctx context.Context, target *target) (map[string]bool, error) {
	pins, err := im.cfg.Store.Pins()
	if err != nil {
		return nil, err
	}
	// What is wrong with one image, or with what is to be dropped, must not keep
	// the others from being pinned.
	failed := errors.Join(im.release(pins), im.importInto(ctx, target))
	wanted := im.given()
	index, err := im.cfg.Store.Open()
	if err != nil {
		return nil, err
	}
	for _, img := range index.Images {
		addNames(wanted, img)
	}
	for _, name := range pins.Names() {
		if wanted[name] {
			continue
		}
		wanted[name] = true
		if err := im.pinPulled(ctx, target, name); err != nil {
			return nil, err
		}
	}
	return wanted, errors.Join(failed, im.unpin(ctx, target, wanted))
}

// given are the names of the images in the configured layouts.
func (im *Images) given() map[string]bool {
	names := map[string]bool{}
	for _, dir := range im.cfg.Layouts {
		l, err := layout.Open(dir)
		if err != nil {
			continue // the import says so
		}
		for _, img := range l.Images {
			addNames(names, img)
		}
	}
	return names
}

func addNames(to map[string]bool, img layout.Image) {
	for _, name := range namesOf(img) {
		to[name] = true
	}
}

// release drops from the store what no commit needs any more.
func (im *Images) release(pins store.Pins) error {
	if pins.Current == nil {
		return nil
	}
	dropped, err := im.cfg.Store.Prune(func(name string) bool { return name == im.cfg.First }, false)
	if errors.Is(err, store.ErrBusy) {
		return nil // an import changes the index when it ends, which is the next time
	}
	for _, name := range dropped {
		im.cfg.Log.Info("image no longer kept", "image", name)
	}
	return err
}

// pinPulled pins an image that a commit needs and that came from a registry, and
// keeps it in the store. One that is not there yet is the kubelet's to pull.
func (im *Images) pinPulled(ctx context.Context, target *target, name string) error {
	img, err := target.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up image %s in containerd: %w", name, err)
	}
	err = im.cfg.Store.Keep(name, plain(img.Target))
	var apart *store.NotSharedError
	switch {
	case errors.As(err, &apart), errors.Is(err, store.ErrBusy):
		// Pinned it is safe from the kubelet, though not from being removed by force.
		im.cfg.Log.Warn("image is pinned and not kept", "image", name, "err", err)
	case err != nil:
		return fmt.Errorf("keep image %s: %w", name, err)
	}
	if img.Labels[pinnedLabel] == pinnedValue && img.Labels[keptLabel] == keptValue {
		return nil
	}
	img.Labels = map[string]string{pinnedLabel: pinnedValue, keptLabel: keptValue}
	if _, err := target.client.ImageService().Update(ctx, img, "labels."+pinnedLabel, "labels."+keptLabel); err != nil {
		return fmt.Errorf("pin image %s: %w", name, err)
	}
	im.cfg.Log.Info("image pinned", "image", name, "digest", img.Target.Digest.String())
	return nil
}

// unpin hands what is no longer wanted to the kubelet's garbage collection.
func (im *Images) unpin(ctx context.Context, target *target, wanted map[string]bool) error {
	list, err := target.client.ImageService().List(ctx, fmt.Sprintf("labels.%q==%s", keptLabel, keptValue))
	if err != nil {
		return fmt.Errorf("list images in containerd: %w", err)
	}
	for _, img := range list {
		if wanted[img.Name] || img.Name == im.cfg.First {
			continue
		}
		img.Labels = map[string]string{pinnedLabel: "", keptLabel: ""}
		if _, err := target.client.ImageService().Update(ctx, img, "labels."+pinnedLabel, "labels."+keptLabel); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("unpin image %s: %w", img.Name, err)
		}
		im.cfg.Log.Info("image unpinned", "image", img.Name)
	}
	return nil
}
