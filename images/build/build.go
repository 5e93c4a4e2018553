package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// DefaultUser is the unprivileged user and group an image runs as unless it
// says otherwise. The number is the one distroless images use; "nonroot" is
// not in any /etc/passwd, and Kubernetes' runAsNonRoot needs a number anyway.
const DefaultUser = "65532:65532"

// Options is one build.
type Options struct {
	// LayoutDir is the OCI layout directory to write, created if missing.
	LayoutDir string
	// Images are built in order.
	Images []Image
	// Prune removes images from the layout that are not in Images.
	Prune bool
	// GOARCH is the machine the images are for. Default: this one.
	GOARCH string
	// Log receives one line per image. Default: discard.
	Log *slog.Logger
}

// Image says what goes into one image.
type Image struct {
	// Name is the full reference, for example bothy.local/hello:1.
	Name string
	// Source is where its files come from.
	Source Source
	// Entrypoint is the command. Default: the source's binary, if it has one.
	Entrypoint []string
	// Cmd are default arguments.
	Cmd []string
	// Env are further variables as KEY=value. PATH is always set.
	Env []string
	// User is "uid:gid". Default DefaultUser.
	User string
	// WorkingDir of the entrypoint. Default /.
	WorkingDir string
	// Ports are exposed ports such as "8080/tcp".
	Ports []string
	// Labels are OCI labels; org.opencontainers.image.title is always set.
	Labels map[string]string
}

// Source is exactly one of its fields.
type Source struct {
	// GoPackage is a package path or ./directory for `go build`.
	GoPackage string
	// CFile is a C file, compiled and linked statically with $CC or cc.
	CFile string
	// Binary is a finished static executable.
	Binary string
	// RootFS is a directory that becomes / of the image.
	RootFS string
	// Dir is the working directory for GoPackage and CFile. Default: the
	// current one.
	Dir string
}

// Result is one built image.
type Result struct {
	Name   string
	Digest string
	// Size is what the image's blobs take on disk, in bytes.
	Size int64
	// Changed is false when the layout held exactly this image already.
	Changed bool
	Took    time.Duration
}

// Build builds all images into the layout. It stops at the first error; images
// built before it are in the layout.
func Build(ctx context.Context, opts Options) ([]Result, error) {
	if opts.LayoutDir == "" {
		return nil, errors.New("build images: no layout directory given")
	}
	if opts.GOARCH == "" {
		opts.GOARCH = runtime.GOARCH
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	work, err := os.MkdirTemp("", "bothy-image-build-")
	if err != nil {
		return nil, fmt.Errorf("build images: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	dir, err := openWriter(opts.LayoutDir)
	if err != nil {
		return nil, err
	}

	var results []Result
	for _, img := range opts.Images {
		r, err := buildOne(ctx, opts, img, dir, work)
		if err != nil {
			return results, fmt.Errorf("build image %s: %w", img.Name, err)
		}
		results = append(results, r)
		opts.Log.Info("image built", "image", r.Name, "digest", r.Digest, "changed", r.Changed, "size", r.Size, "took", r.Took.Round(time.Millisecond))
	}
	if opts.Prune {
		if err := dir.keepOnly(opts.Images); err != nil {
			return results, err
		}
	}
	return results, nil
}

func buildOne(ctx context.Context, opts Options, img Image, dir *writer, work string) (Result, error) {
	started := time.Now()
	if err := validate(img); err != nil {
		return Result{}, err
	}
	files, err := img.Source.files(ctx, opts.GOARCH, work)
	if err != nil {
		return Result{}, err
	}
	image, err := assemble(img, files, opts.GOARCH)
	if err != nil {
		return Result{}, err
	}
	digest, err := image.Digest()
	if err != nil {
		return Result{}, err
	}
	changed, err := dir.put(img.Name, image)
	if err != nil {
		return Result{}, err
	}
	size, err := totalSize(image)
	if err != nil {
		return Result{}, err
	}
	return Result{Name: img.Name, Digest: digest.String(), Size: size, Changed: changed, Took: time.Since(started)}, nil
}

func validate(img Image) error {
	name, tag, ok := cutTag(img.Name)
	if !ok || name == "" || tag == "" || !strings.Contains(name, "/") {
		return fmt.Errorf("name must be a full reference with a tag, such as bothy.local/hello:1")
	}
	set := 0
	for _, s := range []string{img.Source.GoPackage, img.Source.CFile, img.Source.Binary, img.Source.RootFS} {
		if s != "" {
			set++
		}
	}
	if set != 1 {
		return errors.New("exactly one source is needed: a Go package, a C file, a binary or a root file system")
	}
	if img.Source.RootFS != "" && len(img.Entrypoint) == 0 {
		return errors.New("an image from a root file system needs an entrypoint")
	}
	return nil
}

func cutTag(ref string) (name, tag string, ok bool) {
	i := strings.LastIndexByte(ref, ':')
	if i < 0 || strings.Contains(ref[i:], "/") {
		return ref, "", false
	}
	return ref[:i], ref[i+1:], true
}

// assemble makes an image of one layer. Everything that could differ between
// two builds of the same sources is fixed.
func assemble(img Image, files files, arch string) (v1.Image, error) {
	layer, err := files.layer()
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer})
	if err != nil {
		return nil, err
	}
	cfg, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", arch
	cfg.Created = v1.Time{Time: epoch}
	cfg.History = nil
	cfg.Config = config(img, files.entrypoint)
	return mutate.ConfigFile(image, cfg)
}

func config(img Image, entrypoint string) v1.Config {
	c := v1.Config{
		User:       img.User,
		Entrypoint: img.Entrypoint,
		Cmd:        img.Cmd,
		WorkingDir: img.WorkingDir,
		Env:        append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, img.Env...),
		Labels:     map[string]string{"org.opencontainers.image.title": img.Name},
	}
	if c.User == "" {
		c.User = DefaultUser
	}
	if len(c.Entrypoint) == 0 {
		c.Entrypoint = []string{entrypoint}
	}
	if c.WorkingDir == "" {
		c.WorkingDir = "/"
	}
	for k, v := range img.Labels {
		c.Labels[k] = v
	}
	for _, p := range img.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	return c
}

func totalSize(image v1.Image) (int64, error) {
	m, err := image.Manifest()
	if err != nil {
		return 0, err
	}
	size, err := image.Size()
	if err != nil {
		return 0, err
	}
	size += m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	return size, nil
}
