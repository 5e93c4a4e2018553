package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/internal/supervise"
)

// ImporterComponent is the name of the component that imports images.
const ImporterComponent = "images"

// Config says what to import and where to.
type Config struct {
	// Socket is containerd's gRPC socket.
	Socket string
	// Layouts are OCI layout directories, imported in this order. One that does
	// not exist is skipped: a machine may have no bundle.
	Layouts []string
	// First is the name of the image that is imported before all others: the
	// sandbox image, without which no pod starts.
	First string
	// Judge, if set, is asked about each image before a byte of it is copied; its
	// error keeps the image out. Digests are those of the entry in the layout and
	// of the manifest for this machine.
	Judge func(name string, digests []string) error
	// After names the components that must be ready before, usually containerd.
	After []string
	// Log receives one line per imported image and per failure.
	Log *slog.Logger
}

// Images is the images wing of one node.
type Images struct {
	cfg Config

	mu     sync.Mutex
	status Status
}

// Status is what the importer has done.
type Status struct {
	// Imported and Present count the images that were copied by the last run
	// and those that were in place already.
	Imported int `json:"imported"`
	Present  int `json:"present"`
	// Failed holds an error for each image that could not be imported.
	Failed map[string]string `json:"failed,omitempty"`
	// Took is how long the last run needed, in nanoseconds.
	Took time.Duration `json:"took"`
}

// New returns the wing. Nothing happens until its components run.
func New(cfg Config) *Images {
	return &Images{cfg: cfg}
}

// Components returns the importer, a component that runs once and is tried
// again, with back-off, while an image cannot be imported.
func (im *Images) Components() []supervise.Component {
	return []supervise.Component{{
		Name:    ImporterComponent,
		After:   im.cfg.After,
		Restart: supervise.RunOnce,
		Run:     func(ctx context.Context, _ func()) error { return im.Import(ctx) },
	}}
}

// Status returns what the last import did.
func (im *Images) Status() Status {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.status
}

// Import brings every image of every layout into containerd. It goes on after
// an image that fails; the returned error joins all failures.
func (im *Images) Import(ctx context.Context) error {
	c, err := client.New(im.cfg.Socket, client.WithDefaultNamespace(criNamespace), client.WithTimeout(dialTimeout))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", im.cfg.Socket, err)
	}
	defer func() { _ = c.Close() }()
	target, err := newTarget(ctx, c)
	if err != nil {
		return err
	}
	return im.importInto(ctx, target)
}

func (im *Images) importInto(ctx context.Context, target *target) error {
	started := time.Now()
	st := Status{Failed: map[string]string{}}
	var errs []error
	for _, dir := range im.cfg.Layouts {
		if err := im.importLayout(ctx, target, dir, &st); err != nil {
			errs = append(errs, err)
		}
	}
	if err := im.checkFirst(ctx, target); err != nil && st.Failed[im.cfg.First] == "" {
		st.Failed[im.cfg.First] = err.Error()
		errs = append(errs, err)
	}
	st.Took = time.Since(started)
	im.mu.Lock()
	im.status = st
	im.mu.Unlock()
	im.cfg.Log.Debug("images imported", "imported", st.Imported, "present", st.Present, "failed", len(st.Failed), "took", st.Took)
	return errors.Join(errs...)
}

// checkFirst makes sure that the image without which nothing works is there,
// wherever it came from.
func (im *Images) checkFirst(ctx context.Context, target *target) error {
	if im.cfg.First == "" {
		return nil
	}
	_, err := target.client.ImageService().Get(ctx, im.cfg.First)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s is in none of the layouts %v: no pod can start without it; build it with `bothy image build`", im.cfg.First, im.cfg.Layouts)
	}
	return err
}

func (im *Images) importLayout(ctx context.Context, target *target, dir string, st *Status) error {
	l, err := layout.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		im.cfg.Log.Debug("no image layout here", "dir", dir)
		return nil
	}
	if err != nil {
		st.Failed[dir] = err.Error()
		return err
	}
	var errs []error
	for _, img := range l.First(im.cfg.First) {
		if signatures.IsSignature(img.Name) {
			continue // it lies beside the images and is none
		}
		if err := im.importImage(ctx, target, l, img, st); err != nil {
			st.Failed[img.Name] = err.Error()
			errs = append(errs, fmt.Errorf("import image %s: %w", img.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (im *Images) importImage(ctx context.Context, target *target, l *layout.Layout, img layout.Image, st *Status) error {
	present, err := target.has(ctx, img)
	if err != nil {
		return err
	}
	if present {
		st.Present++
		return nil
	}
	if err := im.judge(l, img); err != nil {
		return err
	}
	started := time.Now()
	if err := target.put(ctx, l, img); err != nil {
		return err
	}
	st.Imported++
	im.cfg.Log.Info("image imported", "image", img.Name, "digest", img.Descriptor.Digest.String(), "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// judge asks whether an image may come in.
func (im *Images) judge(l *layout.Layout, img layout.Image) error {
	if im.cfg.Judge == nil {
		return nil
	}
	manifest, _, err := l.Manifest(img.Descriptor, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return err
	}
	digests := []string{img.Descriptor.Digest.String()}
	if manifest.Digest != img.Descriptor.Digest {
		digests = append(digests, manifest.Digest.String())
	}
	return im.cfg.Judge(img.Name, digests)
}
