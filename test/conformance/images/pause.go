package images

import (
	"context"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pause compiles the program that holds a pod's namespaces.
func (b *builder) pause(ctx context.Context) (Image, error) {
	binary := filepath.Join(b.work, "pause")
	source := filepath.Join(b.Sources, "build/pause/linux/pause.c")
	if _, err := run(ctx, "", "cc", "-Os", "-static", "-s", "-Wl,--build-id=none", "-DVERSION="+pauseTag, "-o", binary, source); err != nil {
		return Image{}, err
	}
	t := tree{}
	if err := t.copy("pause", 0o755, binary); err != nil {
		return Image{}, err
	}
	layer, err := t.layer()
	if err != nil {
		return Image{}, err
	}
	return Image{
		Name: releaseRegistry + "pause:" + pauseTag, Change: "none but the compiler",
		layers: []v1.Layer{layer}, entrypoint: []string{"/pause"}, user: "65535:65535",
	}, nil
}
