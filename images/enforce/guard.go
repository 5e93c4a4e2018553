package enforce

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	ctrdcontainers "github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/plugin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/internal/cosign"
)

// kubernetes is containerd's namespace for the images and containers of pods.
const kubernetes = "k8s.io"

// Config says by what and with what.
type Config struct {
	Gate *gate.Gate
	// Root is containerd's directory, where the files of images are.
	Root string
	// Shim and Runc are the programs that run containers; no others may.
	Shim, Runc string
	// Sources are asked in this order for signatures that are not here when an
	// image is pulled, until it may be.
	Sources []Source
	// Fetch, if set, is asked to put the content of an image that may be pulled into
	// containerd, as far as it can. What is missing then is containerd's to get.
	Fetch func(ctx context.Context, store content.Store, image string, desc ocispec.Descriptor) error
}

// Source is where signatures of images are. What it says is believed in nothing.
type Source interface {
	// Collect returns what is attached to a digest of an image's repository.
	Collect(ctx context.Context, image, digest string) (*cosign.Signatures, error)
	// Manifest returns the manifest or index with a digest.
	Manifest(ctx context.Context, image, digest string) ([]byte, error)
}

// Guard is the policy at work inside one containerd.
type Guard struct {
	cfg    Config
	stack  atomic.Pointer[stack]
	making *making
}

// stack is the containerd that the guard is in.
type stack struct {
	images       images.Store
	containers   ctrdcontainers.Store
	content      content.Store
	snapshotters map[string]snapshots.Snapshotter
	known        *variants
}

// New returns a guard. It acts when containerd is started with its plugins.
func New(cfg Config) *Guard { return &Guard{cfg: cfg, making: newMaking()} }

// Plugins returns containerd's plugins with the guarded ones wrapped. A plugin
// that is not there is an error: containerd would run unguarded.
func (g *Guard) Plugins(all []plugin.Registration) ([]plugin.Registration, error) {
	wrappers := map[string]func(any) (any, error){
		shimController: func(s any) (any, error) {
			c, ok := s.(sandbox.Controller)
			return &sandboxes{Controller: c, guard: g}, is(ok, s)
		},
		services.ImagesService: func(s any) (any, error) {
			c, ok := s.(imagesapi.ImagesClient)
			return &names{ImagesClient: c, guard: g}, is(ok, s)
		},
		services.ContainersService: func(s any) (any, error) {
			c, ok := s.(containersapi.ContainersClient)
			return &containers{ContainersClient: c, guard: g}, is(ok, s)
		},
		services.TasksService: func(s any) (any, error) {
			c, ok := s.(tasksapi.TasksClient)
			return &tasks{TasksClient: c, guard: g}, is(ok, s)
		},
		services.DiffService: func(s any) (any, error) {
			c, ok := s.(diffapi.DiffClient)
			return &diffs{DiffClient: c, guard: g}, is(ok, s)
		},
		services.SnapshotsService: func(s any) (any, error) {
			m, ok := s.(map[string]snapshots.Snapshotter)
			return g.guarded(m), is(ok, s)
		},
	}
	out := make([]plugin.Registration, 0, len(all)+1)
	for _, r := range all {
		id := r.ID
		if r.Type == plugins.SandboxControllerPlugin {
			id = r.Type.String() + "." + r.ID
		} else if r.Type != plugins.ServicePlugin {
			id = ""
		}
		if wrap := wrappers[id]; wrap != nil {
			r = g.wrapped(r, wrap)
			delete(wrappers, id)
		}
		out = append(out, r)
	}
	for id := range wrappers {
		return nil, fmt.Errorf("this containerd has no %s to guard with the image policy", id)
	}
	return append(out, plugin.Registration{
		Type: plugins.ImageVerifierPlugin, ID: "bothy", Requires: []plugin.Type{plugins.MetadataPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) { return &pulls{guard: g}, g.attach(ic) },
	}), nil
}

func is(ok bool, service any) error {
	if !ok {
		return fmt.Errorf("the image policy does not know how to guard a %T", service)
	}
	return nil
}

// wrapped is a registration whose instance is guarded.
func (g *Guard) wrapped(r plugin.Registration, wrap func(any) (any, error)) plugin.Registration {
	inner := r.InitFn
	if !slices.Contains(r.Requires, plugins.MetadataPlugin) {
		r.Requires = append(slices.Clone(r.Requires), plugins.MetadataPlugin)
	}
	r.InitFn = func(ic *plugin.InitContext) (any, error) {
		if err := g.attach(ic); err != nil {
			return nil, err
		}
		service, err := inner(ic)
		if err != nil {
			return nil, err
		}
		return wrap(service)
	}
	return r
}

// attach finds the stores of containerd, which all guarded plugins require.
func (g *Guard) attach(ic *plugin.InitContext) error {
	m, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return err
	}
	db, ok := m.(*metadata.DB)
	if !ok {
		return is(false, m)
	}
	if g.stack.Load() == nil {
		g.use(&stack{
			images: metadata.NewImageStore(db), containers: metadata.NewContainerStore(db),
			content: db.ContentStore(), snapshotters: db.Snapshotters(),
		})
	}
	return nil
}

func (g *Guard) use(s *stack) {
	s.known = newVariants()
	g.stack.CompareAndSwap(nil, s)
}

// inKubernetes is a context in the namespace of pods.
func inKubernetes(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, kubernetes)
}
