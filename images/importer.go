package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/images/store"
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
	// Store is where imported bundles are, and where the images that the site's
	// commits need are kept. What it has goes before Layouts. Nil for none: then
	// nothing is kept.
	Store *store.Store
	// Mirror gives other nodes what this one has; nil for a node that is alone.
	Mirror *Mirror
	// Judge, if set, is asked about each image before a byte of it is copied; its
	// error keeps the image out. Digests are those of the entry in the layout and
	// of the manifest for this machine.
	Judge func(name string, digests []string) error
	// JudgedBy is the name of a file in the directory of Store: when it is
	// replaced, Judge is asked again about the images that it kept out.
	JudgedBy string
	// After names the components that must be ready before, usually containerd.
	After []string
	// Log receives one line per imported image and per failure.
	Log *slog.Logger
}

// Images is the images wing of one node.
type Images struct {
	cfg Config

	// importing is held by who writes images into containerd.
	importing sync.Mutex

	mu     sync.Mutex
	status Status
	// changed is closed when the status is replaced.
	changed chan struct{}
}

// Status is what the importer has done.
type Status struct {
	// Imported and Present count the images that were copied by the last run
	// and those that were in place already.
	Imported int `json:"imported"`
	Present  int `json:"present"`
	// Failed holds an error for each image that could not be imported.
	Failed map[string]string `json:"failed,omitempty"`
	// Denied holds, for each image that was kept out, why.
	Denied map[string]string `json:"denied,omitempty"`
	// Stored are "name@digest" of the images of the store that are ready to run.
	Stored []string `json:"stored,omitempty"`
	// Index is the digest of the store's index that the last run went by: what was
	// said before is about another.
	Index string `json:"index,omitempty"`
	// Took is how long the last run needed, in nanoseconds.
	Took time.Duration `json:"took"`
}

// Has reports whether an image of the store is ready to run.
func (s *Status) Has(name, digest string) bool { return slices.Contains(s.Stored, name+"@"+digest) }

// New returns the wing. Nothing happens until its components run.
func New(cfg Config) *Images {
	return &Images{cfg: cfg, changed: make(chan struct{})}
}

// Components returns the importer, a component that runs once and is tried
// again, with back-off, while an image cannot be imported; and, if there is a
// store, the keeper, which brings back and pins what the site needs.
func (im *Images) Components() []supervise.Component {
	all := []supervise.Component{{
		Name:    ImporterComponent,
		After:   im.cfg.After,
		Restart: supervise.RunOnce,
		Run:     func(ctx context.Context, _ func()) error { return im.Import(ctx) },
	}}
	if im.cfg.Store != nil {
		all = append(all, supervise.Component{Name: KeeperComponent, After: im.cfg.After, Run: im.keep})
	}
	if im.cfg.Mirror != nil {
		all = append(all, im.mirrorComponent())
	}
	return all
}

// Status returns what the last import did.
func (im *Images) Status() Status {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.status
}

// Changed returns a channel that is closed when the status changes.
func (im *Images) Changed() <-chan struct{} {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.changed
}

func (im *Images) setStatus(st Status) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.status = st
	close(im.changed)
	im.changed = make(chan struct{})
}

// Import brings every image of every layout into containerd. It goes on after
// an image that fails; the returned error joins all failures. That an image may
// not come in is none, unless it is the first.
func (im *Images) Import(ctx context.Context) error {
	target, closeTarget, err := im.connect(ctx)
	if err != nil {
		return err
	}
	defer closeTarget()
	return im.importInto(ctx, target)
}

func (im *Images) connect(ctx context.Context) (*target, func(), error) {
	c, err := client.New(im.cfg.Socket, client.WithDefaultNamespace(criNamespace), client.WithTimeout(dialTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to containerd at %s: %w", im.cfg.Socket, err)
	}
	target, err := newTarget(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	target.store = im.cfg.Store
	return target, func() { c.Close() }, nil
}

func (im *Images) importInto(ctx context.Context, target *target) error {
	im.importing.Lock()
	defer im.importing.Unlock()
	started := time.Now()
	st := Status{Failed: map[string]string{}, Denied: map[string]string{}}
	var errs []error
	stored, err := im.importStore(ctx, target, &st)
	if err != nil {
		errs = append(errs, err)
	}
	for _, dir := range im.cfg.Layouts {
		if err := im.importLayout(ctx, target, dir, stored, &st); err != nil {
			errs = append(errs, err)
		}
	}
	if err := im.checkFirst(ctx, target, st.Denied[im.cfg.First]); err != nil && st.Failed[im.cfg.First] == "" {
		st.Failed[im.cfg.First] = err.Error()
		errs = append(errs, err)
	}
	st.Took = time.Since(started)
	im.setStatus(st)
	im.cfg.Log.Debug("images imported", "imported", st.Imported, "present", st.Present, "failed", len(st.Failed), "took", st.Took)
	return errors.Join(errs...)
}

// checkFirst makes sure that the image without which nothing works is there,
// wherever it came from.
func (im *Images) checkFirst(ctx context.Context, target *target, denied string) error {
	if im.cfg.First == "" {
		return nil
	}
	_, err := target.client.ImageService().Get(ctx, im.cfg.First)
	if errdefs.IsNotFound(err) && denied != "" {
		return fmt.Errorf("no pod can start without the image %s: %s", im.cfg.First, denied)
	}
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s is in none of the layouts %v: no pod can start without it; build it with `bothy image build`", im.cfg.First, im.cfg.Layouts)
	}
	return err
}

// importStore imports what the store has and returns its names.
func (im *Images) importStore(ctx context.Context, target *target, st *Status) (map[string]bool, error) {
	if im.cfg.Store == nil {
		return nil, nil
	}
	index, err := im.cfg.Store.Open()
	if err != nil {
		st.Failed[im.cfg.Store.Dir()] = err.Error()
		return nil, err
	}
	st.Index = index.Digest.String()
	names := map[string]bool{}
	for _, img := range index.Images {
		names[img.Name] = true
	}
	err = im.importAll(ctx, target, index.Layout, nil, st)
	for _, img := range index.Images {
		if st.Failed[img.Name] == "" && st.Denied[img.Name] == "" {
			st.Stored = append(st.Stored, img.Name+"@"+img.Descriptor.Digest.String())
		}
	}
	return names, err
}

// importLayout imports the images of a layout whose names are not in skip.
func (im *Images) importLayout(ctx context.Context, target *target, dir string, skip map[string]bool, st *Status) error {
	l, err := layout.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		im.cfg.Log.Debug("no image layout here", "dir", dir)
		return nil
	}
	if err != nil {
		st.Failed[dir] = err.Error()
		return err
	}
	return im.importAll(ctx, target, l, skip, st)
}

func (im *Images) importAll(ctx context.Context, target *target, l *layout.Layout, skip map[string]bool, st *Status) error {
	var errs []error
	for _, img := range l.First(im.cfg.First) {
		if skip[img.Name] || signatures.IsSignature(img.Name) {
			continue // another has the name, or it lies beside the images and is none
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
	denied, err := im.judge(l, img)
	if err != nil {
		return err
	}
	if denied != "" {
		st.Denied[img.Name] = denied
		return nil
	}
	started := time.Now()
	if err := target.put(ctx, l, img); err != nil {
		return err
	}
	st.Imported++
	im.cfg.Log.Info("image imported", "image", img.Name, "digest", img.Descriptor.Digest.String(), "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// judge asks whether an image may come in, and returns why not.
func (im *Images) judge(l *layout.Layout, img layout.Image) (denied string, err error) {
	if im.cfg.Judge == nil {
		return "", nil
	}
	manifest, _, err := l.Manifest(img.Descriptor, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return "", err
	}
	digests := []string{img.Descriptor.Digest.String()}
	if manifest.Digest != img.Descriptor.Digest {
		digests = append(digests, manifest.Digest.String())
	}
	if err := im.cfg.Judge(img.Name, digests); err != nil {
		return err.Error(), nil //nolint:nilerr // the error is the answer
	}
	return "", nil
}
