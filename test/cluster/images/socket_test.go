package images

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/bothy-os/bothy/test/cluster"
)

// containerd connects to the node's containerd as root on the machine could.
func containerd(t *testing.T, n *cluster.Node, namespace string) (*client.Client, context.Context) {
	t.Helper()
	socket, err := n.Path("/run/bothy/containerd.sock")
	must(t, err)
	c, err := client.New(socket)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c, namespaces.WithNamespace(t.Context(), namespace)
}

func kill(t *testing.T, p cluster.Process) {
	t.Helper()
	must(t, syscall.Kill(p.PID, syscall.SIGKILL))
}

// killContainer ends the container of a pod, as a crash would.
func killContainer(t *testing.T, n *cluster.Node, k *cluster.Kubectl, pod string) {
	t.Helper()
	id, err := k.Field(t.Context(), "pod/"+pod, "{.status.containerStatuses[0].containerID}")
	must(t, err)
	c, ctx := containerd(t, n, "k8s.io")
	container, err := c.LoadContainer(ctx, strings.TrimPrefix(id, "containerd://"))
	must(t, err)
	task, err := container.Task(ctx, nil)
	must(t, err)
	must(t, task.Kill(ctx, syscall.SIGKILL))
}

// socket: who may talk to containerd gets no further than the kubelet.
func (s *site) socket(t *testing.T) {
	c, ctx := containerd(t, s.Node, "k8s.io")
	signed, err := c.GetImage(ctx, "bothy.local/signed:1")
	must(t, err)
	unsigned, err := c.GetImage(ctx, "bothy.local/unsigned:1")
	must(t, err)
	snapshotter := snapshotterOf(ctx, t, c)
	attempt := func(opts ...client.NewContainerOpts) error {
		t.Helper()
		made, err := c.NewContainer(ctx, "attack", append([]client.NewContainerOpts{client.WithSnapshotter(snapshotter)}, opts...)...)
		if err == nil {
			must(t, made.Delete(ctx, client.WithSnapshotCleanup))
		}
		for _, key := range []string{"attack", "extract-attack"} {
			_ = c.SnapshotService(snapshotter).Remove(ctx, key) // left by a refused one
		}
		return err
	}
	spec := func(more ...oci.SpecOpts) client.NewContainerOpts {
		return client.WithNewSpec(append([]oci.SpecOpts{oci.WithProcessArgs("/toolbox", "serve")}, more...)...)
	}
	t.Run("its twin", func(t *testing.T) {
		must(t, attempt(client.WithImage(signed), client.WithNewSnapshot("attack", signed), spec()))
	})
	for what, c := range map[string]struct {
		err  func() error
		want string
	}{
		"an unsigned image": {func() error {
			return attempt(client.WithImage(unsigned), client.WithNewSnapshot("attack", unsigned), spec())
		}, "has no signature"},
		"the name of one image and the files of another": {func() error {
			return attempt(client.WithImage(signed), withSnapshotOf(unsigned, false), spec())
		}, "has no signature"},
		"files of another image, as a layer in the making": {func() error {
			return attempt(client.WithImage(signed), withSnapshotOf(unsigned, true), spec())
		}, "a layer in the making"},
		"no image": {func() error {
			return attempt(client.WithNewSnapshot("attack", signed), spec(), func(_ context.Context, _ *client.Client, made *containers.Container) error {
				made.Image = ""
				return nil
			})
		}, "which containerd does not have"},
		"a root elsewhere": {func() error {
			return attempt(client.WithImage(signed), client.WithNewSnapshot("attack", signed), spec(func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
				s.Root.Path = "/"
				return nil
			}))
		}, "root.path must be relative"},
		"another runtime": {func() error {
			return attempt(client.WithImage(signed), client.WithNewSnapshot("attack", signed), client.WithRuntime("/bin/sh", nil), spec())
		}, "its runtime is"},
		"an import": {func() error {
			image, err := random.Image(64, 1)
			must(t, err)
			image, err = mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH})
			must(t, err)
			tag, err := name.NewTag("bothy.local/imported:1")
			must(t, err)
			var archive bytes.Buffer
			must(t, tarball.Write(tag, image, &archive))
			_, err = s.client(t).Import(ctx, &archive)
			return err
		}, "has no signature"},
		"a name for what is denied": {func() error {
			target := unsigned.Target()
			_, err := s.client(t).ImageService().Create(ctx, ctrdimages.Image{Name: "bothy.local/renamed:1", Target: target})
			return err
		}, "has no signature"},
	} {
		t.Run(what, func(t *testing.T) {
			if err := c.err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("a task with another root", func(t *testing.T) {
		made, err := c.NewContainer(ctx, "attack", client.WithSnapshotter(snapshotter), client.WithImage(signed), client.WithNewSnapshot("attack", signed), spec())
		must(t, err)
		defer func() { must(t, made.Delete(ctx, client.WithSnapshotCleanup)) }()
		_, err = made.NewTask(ctx, nullIO, client.WithRootFS([]mount.Mount{{Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}}}))
		if err == nil || !strings.Contains(err.Error(), "not its snapshot") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another namespace", func(t *testing.T) {
		_, elsewhere := containerd(t, s.Node, "elsewhere")
		_, err := c.NewContainer(elsewhere, "attack", spec())
		if err == nil {
			t.Error("a container without an image was made")
		}
	})
}

func (s *site) client(t *testing.T) *client.Client {
	t.Helper()
	c, _ := containerd(t, s.Node, "k8s.io")
	return c
}

// snapshotterOf is the one that the node uses.
func snapshotterOf(ctx context.Context, t *testing.T, c *client.Client) string {
	t.Helper()
	resp, err := c.IntrospectionService().Plugins(ctx, `type==io.containerd.snapshotter.v1`)
	must(t, err)
	for _, p := range resp.Plugins {
		if p.InitErr == nil {
			return p.ID
		}
	}
	t.Fatal("no snapshotter works")
	return ""
}

// withSnapshotOf puts the files of an image below a container that may name
// another.
func withSnapshotOf(image client.Image, asLayer bool) client.NewContainerOpts {
	return func(ctx context.Context, c *client.Client, made *containers.Container) error {
		diffs, err := image.RootFS(ctx)
		if err != nil {
			return err
		}
		key := "attack"
		if asLayer {
			key = "extract-attack"
		}
		if _, err := c.SnapshotService(made.Snapshotter).Prepare(ctx, key, identity.ChainID(diffs).String()); err != nil {
			return err
		}
		made.SnapshotKey = key
		return nil
	}
}

// nullIO is for a task that never starts.
func nullIO(id string) (cio.IO, error) { return cio.NullIO(id) }
