package enforce

import (
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	ctrdcontainers "github.com/containerd/containerd/v2/core/containers"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

func protobufMask(fields []string) *fieldmaskpb.FieldMask {
	if len(fields) == 0 {
		return nil
	}
	return &fieldmaskpb.FieldMask{Paths: fields}
}

func protobufContainer(c *containersapi.Container) ctrdcontainers.Container {
	return ctrdcontainers.Container{
		ID: c.ID, Image: c.Image, Snapshotter: c.Snapshotter, SnapshotKey: c.SnapshotKey,
		Runtime: ctrdcontainers.RuntimeInfo{Name: c.Runtime.Name}, Spec: c.Spec,
	}
}

func randomImage(t testing.TB) v1.Image {
	t.Helper()
	image, err := random.Image(64, 1)
	must(t, err)
	return image
}
