package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options is one build.
type Options struct {
	// Layout is the OCI layout directory to write; what is there is replaced.
	Layout string
	// Sources is the directory of the module k8s.io/kubernetes.
	Sources string
	// Programs is the directory with the compiled programs: agnhost, busybox, coredns,
	// nnp, regression-issue-74839, sample-apiserver, etcd.
	Programs string
	// Packages is where Debian packages are kept between builds.
	Packages string
}

type builder struct {
	Options
	work string
}

// Build makes all images of the suite and returns them. It needs apt-get,
// dpkg-deb and a C compiler.
func Build(ctx context.Context, o Options) (_ []Image, err error) {
	work, err := os.MkdirTemp("", "bothy-suite-images-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &builder{Options: o, work: work}
	list, err := b.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	return list, write(o.Layout, list)
}

// write makes the layout beside its place and moves it there when it is whole.
func write(dir string, list []Image) error {
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	l, err := layout.Write(fresh, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	for _, img := range list {
		image, err := assemble(img)
		if err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
		if err := l.AppendImage(image, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: img.Name})); err != nil {
			return fmt.Errorf("write image %s: %w", img.Name, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

// assemble makes the image of its layers. The title makes images of the same
// content under different names differ, as the suite expects of two releases.
func assemble(img Image) (v1.Image, error) {
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for _, l := range img.layers {
		var err error
		if image, err = mutate.Append(image, mutate.Addendum{Layer: l, MediaType: types.OCILayer}); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.History = nil
	config.Config = v1.Config{
		User: img.user, Entrypoint: img.entrypoint, Cmd: img.cmd,
		Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels: map[string]string{ocispec.AnnotationTitle: img.Name},
	}
	return mutate.ConfigFile(image, config)
}

func compressed(l v1.Layer) ([]byte, error) {
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
