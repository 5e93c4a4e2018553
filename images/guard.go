package images

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/diff"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layer"
)

// GuardLayers makes the containerd of this process look at every layer while it
// unpacks it, wherever the image came from, see [layer.Guard]. It holds for the
// life of the process; call it once, before containerd starts.
func GuardLayers(limits layer.Limits) {
	diff.RegisterProcessor(func(ctx context.Context, mediaType string) (diff.StreamProcessorInit, bool) {
		if _, err := ctrdimages.DiffCompression(ctx, mediaType); err != nil {
			return nil, false // no archive, or one that has to be decrypted before
		}
		return func(_ context.Context, packed diff.StreamProcessor, _ map[string]typeurl.Any) (diff.StreamProcessor, error) {
			g, err := layer.Open(packed, limits)
			if err != nil {
				return nil, err
			}
			return guarded{g}, nil
		}, true
	})
}

// guarded is a layer as containerd's differ reads it.
type guarded struct{ io.ReadCloser }

// MediaType implements diff.StreamProcessor.
func (guarded) MediaType() string { return ocispec.MediaTypeImageLayer }
