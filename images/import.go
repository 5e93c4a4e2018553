package images

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/store"
)

const (
	// criNamespace is where containerd's CRI plugin keeps its images.
	criNamespace = "k8s.io"
	// dialTimeout bounds the wait for containerd's socket.
	dialTimeout = 10 * time.Second
)

// Labels by which containerd's CRI plugin recognises an image as its own and
// reports it as pinned, so that the kubelet never collects it.
const (
	managedLabel, managedValue = "io.cri-containerd.image", "managed"
	pinnedLabel, pinnedValue   = "io.cri-containerd.pinned", "pinned"
	// keptLabel is on what this package pinned and may release again.
	keptLabel, keptValue = "bothy.dev/kept", "true"
)

// target is a containerd to import into.
type target struct {
	client      *client.Client
	snapshotter string
	// store shares files with containerd; nil if there is none.
	store *store.Store
}

func newTarget(ctx context.Context, c *client.Client) (*target, error) {
	name, err := activeSnapshotter(ctx, c)
	if err != nil {
		return nil, err
	}
	return &target{client: c, snapshotter: name}, nil
}

// activeSnapshotter asks containerd which snapshotter it runs: overlayfs where
// the file system allows it, whatever else is loaded otherwise.
func activeSnapshotter(ctx context.Context, c *client.Client) (string, error) {
	resp, err := c.IntrospectionService().Plugins(ctx, `type==io.containerd.snapshotter.v1`)
	if err != nil {
		return "", fmt.Errorf("ask containerd for its snapshotter: %w", err)
	}
	name := pickSnapshotter(resp.Plugins)
	if name == "" {
		return "", fmt.Errorf("containerd has no working snapshotter: look for its warnings about io.containerd.snapshotter.v1 in the log")
	}
	return name, nil
}

func pickSnapshotter(plugins []*introspection.Plugin) string {
	var name string
	for _, p := range plugins {
		if p.InitErr != nil {
			continue
		}
		if name == "" || p.ID == "overlayfs" {
			name = p.ID
		}
	}
	return name
}

// has reports whether the image is in place: same manifest, pinned, under all
// of its names, all blobs there, unpacked.
func (t *target) has(ctx context.Context, img layout.Image) (bool, error) {
	var got ctrdimages.Image
	for _, name := range namesOf(img) {
		var err error
		if got, err = t.client.ImageService().Get(ctx, name); errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look up image in containerd: %w", err)
		}
		if got.Target.Digest != img.Descriptor.Digest || got.Labels[pinnedLabel] != pinnedValue || got.Labels[managedLabel] != managedValue {
			return false, nil
		}
	}
	unpacked, err := client.NewImage(t.client, got).IsUnpacked(ctx, t.snapshotter)
	if errdefs.IsNotFound(err) { // a blob is gone: import again
		return false, nil
	}
	return unpacked, err
}

// namesOf are the names an image goes by: its own, and the one by digest that
// pods use whose tag was resolved before.
func namesOf(img layout.Image) []string {
	if strings.Contains(img.Name, "@") {
		return []string{img.Name}
	}
	repository := img.Name
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		repository = repository[:colon]
	}
	return []string{img.Name, repository + "@" + img.Descriptor.Digest.String()}
}

// put copies an image, unpacks it and names it, in this order: whatever has a
// name can run. A lease keeps containerd's garbage collection away from the
// blobs until the image refers to them.
func (t *target) put(ctx context.Context, l *layout.Layout, img layout.Image) error {
	ctx, release, err := t.client.WithLease(ctx)
	if err != nil {
		return fmt.Errorf("take a lease in containerd: %w", err)
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }() // it expires by itself

	if err := t.copyBlobs(ctx, l, img); err != nil {
		return err
	}
	record := ctrdimages.Image{
		Name:   img.Name,
		Target: plain(img.Descriptor),
		Labels: map[string]string{managedLabel: managedValue, pinnedLabel: pinnedValue, keptLabel: keptValue},
	}
	if err := client.NewImage(t.client, record).Unpack(ctx, t.snapshotter); err != nil {
		return fmt.Errorf("unpack with snapshotter %s: %w", t.snapshotter, err)
	}
	for _, name := range namesOf(img) {
		record.Name = name
		if _, err = t.record(ctx, record); err != nil {
			return fmt.Errorf("record image in containerd: %w", err)
		}
	}
	return nil
}

// copyBlobs writes the leaves first, so that a manifest in containerd always
// has its config and layers.
func (t *target) copyBlobs(ctx context.Context, l *layout.Layout, img layout.Image) error {
	manifestDesc, manifest, err := l.Manifest(img.Descriptor, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return err
	}
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if err := t.copyBlob(ctx, l, d, nil); err != nil {
			return err
		}
	}
	if err := t.copyBlob(ctx, l, manifestDesc, references(manifest)); err != nil {
		return err
	}
	if manifestDesc.Digest == img.Descriptor.Digest {
		return nil
	}
	return t.copyBlob(ctx, l, img.Descriptor, map[string]string{"containerd.io/gc.ref.content.m.0": manifestDesc.Digest.String()})
}

// references are the labels that keep a manifest's blobs from being collected.
func references(m *ocispec.Manifest) map[string]string {
	refs := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, d := range m.Layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = d.Digest.String()
	}
	return refs
}

func (t *target) copyBlob(ctx context.Context, l *layout.Layout, desc ocispec.Descriptor, labels map[string]string) error {
	f, err := l.OpenBlob(desc)
	if err != nil {
		return err
	}
	defer f.Close()
	if t.store != nil && l.Dir == t.store.Dir() {
		// As a second name of the same file containerd has it without a copy.
		if _, err := t.store.Lend(desc); err != nil {
			return err
		}
	}
	ref := "bothy-import-" + desc.Digest.String()
	err = content.WriteBlob(ctx, t.client.ContentStore(), ref, f, plain(desc), content.WithLabels(labels))
	if err == nil {
		return t.label(ctx, desc, labels)
	}
	// What was written would be taken up again by the next attempt, and be as
	// wrong as it is now. The error that matters is the one above.
	_ = t.client.ContentStore().Abort(context.WithoutCancel(ctx), ref)
	// containerd checks the digest; hashing again here finds out whether the
	// file is to blame or containerd.
	if bad := l.VerifyBlob(desc); bad != nil {
		return bad
	}
	return fmt.Errorf("copy %s into containerd: %w", f.Name(), err)
}

// label repeats the labels for a blob that was there before, for instance from
// an import that was cut short.
func (t *target) label(ctx context.Context, desc ocispec.Descriptor, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	var fields []string
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	if _, err := t.client.ContentStore().Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, fields...); err != nil {
		return fmt.Errorf("label blob %s: %w", desc.Digest, err)
	}
	return nil
}

func (t *target) record(ctx context.Context, img ctrdimages.Image) (ctrdimages.Image, error) {
	is := t.client.ImageService()
	stored, err := is.Create(ctx, img)
	if !errdefs.IsAlreadyExists(err) {
		return stored, err
	}
	return is.Update(ctx, img, "target", "labels."+managedLabel, "labels."+pinnedLabel, "labels."+keptLabel)
}

// plain drops the annotations of a descriptor: they name the image inside its
// layout and mean nothing in containerd.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
