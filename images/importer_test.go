package images

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	intro "github.com/containerd/containerd/v2/core/introspection"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	rpc "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/bothy-os/bothy/images/build"
	"github.com/bothy-os/bothy/images/layout"
)

// containerd is containerd's own stores behind its own client, without the
// daemon.
type containerd struct {
	t      *testing.T
	ctx    context.Context
	target *target
	db     *metadata.DB
	dir    string
}

func newContainerd(t *testing.T) *containerd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: unpacking a layer is a mount")
	}
	c, closeIt, err := openContainerd(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeIt)
	c.t = t
	return c
}

// openContainerd opens the stores in a directory, which may have been used by
// somebody who was killed.
func openContainerd(ctx context.Context, dir string) (*containerd, func(), error) {
	content, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		return nil, nil, err
	}
	snapshotter, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	if err != nil {
		return nil, nil, err
	}
	file, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		return nil, nil, err
	}
	db := metadata.NewDB(file, content, map[string]snapshots.Snapshotter{"native": snapshotter})
	ctx = namespaces.WithNamespace(ctx, criNamespace)
	if err := db.Init(ctx); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	c, err := client.New("", client.WithDefaultNamespace(criNamespace), client.WithServices(
		client.WithContentStore(db.ContentStore()),
		client.WithImageStore(metadata.NewImageStore(db)),
		client.WithLeasesService(metadata.NewLeaseManager(db)),
		client.WithSnapshotters(map[string]snapshots.Snapshotter{"native": db.Snapshotter("native")}),
		client.WithDiffService(differ{Applier: apply.NewFileSystemApplier(db.ContentStore())}),
		client.WithIntrospectionService(plugins{}),
	))
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	target, err := newTarget(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return &containerd{ctx: ctx, target: target, db: db, dir: dir}, func() { _ = snapshotter.Close(); file.Close() }, nil
}

// plugins says that overlayfs failed and native works.
type plugins struct{ intro.Service }

func (plugins) Plugins(context.Context, ...string) (*introspection.PluginsResponse, error) {
	return &introspection.PluginsResponse{Plugins: []*introspection.Plugin{
		{ID: "overlayfs", InitErr: &rpc.Status{Message: "not here"}}, {ID: "native"},
	}}, nil
}

// testLayout builds a layout of the given images.
func testLayout(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	opts := build.Options{LayoutDir: dir}
	for _, name := range names {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "app"), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
		opts.Images = append(opts.Images, build.Image{Name: name, Source: build.Source{RootFS: root}, Entrypoint: []string{"/app"}})
	}
	if _, err := build.Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (c *containerd) importAll(dirs ...string) (Status, error) {
	return c.importFirst("", dirs...)
}

func (c *containerd) importFirst(first string, dirs ...string) (Status, error) {
	im := New(Config{Layouts: dirs, First: first, Log: slog.New(slog.DiscardHandler)})
	err := im.importInto(c.ctx, c.target)
	return im.Status(), err
}

func (c *containerd) collectGarbage() {
	c.t.Helper()
	if _, err := c.db.GarbageCollect(c.ctx); err != nil {
		c.t.Fatal(err)
	}
}

func (c *containerd) names() string {
	c.t.Helper()
	list, err := c.target.client.ImageService().List(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		if i.Labels[pinnedLabel] != pinnedValue || i.Labels[managedLabel] != managedValue {
			c.t.Errorf("%s has labels %v", i.Name, i.Labels)
		}
		if !strings.Contains(i.Name, "@") {
			names = append(names, i.Name)
		}
	}
	return strings.Join(names, " ")
}

// TestDeniedImageStaysOut: of an image that may not run not a byte is copied.
func TestDeniedImageStaysOut(t *testing.T) {
	c := newContainerd(t)
	dir := testLayout(t, "x/app:1", "x/evil:1")
	var asked []string
	im := New(Config{Layouts: []string{dir}, Log: slog.New(slog.DiscardHandler), Judge: func(name string, digests []string) error {
		asked = append(asked, digests...)
		if name == "x/evil:1" {
			return errors.New("it is not signed")
		}
		return nil
	}})
	err := im.importInto(c.ctx, c.target)
	if st := im.Status(); err != nil || st.Imported != 1 || st.Denied["x/evil:1"] != "it is not signed" || len(asked) != 2 {
		t.Errorf("%+v, %v, asked about %v", st, err, asked)
	}
	if _, err := c.target.client.ContentStore().Info(c.ctx, digest.Digest(asked[1])); !errdefs.IsNotFound(err) {
		t.Errorf("the manifest of a denied image: %v", err)
	}
}

func TestImportsOnceAndSurvivesGarbageCollection(t *testing.T) {
	c := newContainerd(t)
	dir := testLayout(t, "x/app:1", "x/pause:1")
	st, err := c.importAll(dir, filepath.Join(t.TempDir(), "no-bundle-here"))
	if err != nil || st.Imported != 2 || st.Present != 0 {
		t.Fatalf("first import: %+v, %v", st, err)
	}
	if got := c.names(); got != "x/app:1 x/pause:1" {
		t.Errorf("images %s", got)
	}
	c.collectGarbage()
	if st, err = c.importAll(dir); err != nil || st.Imported != 0 || st.Present != 2 {
		t.Errorf("second import: %+v, %v", st, err)
	}
}

// lose removes an image by all of its names, with its content.
func (c *containerd) lose(name string) {
	c.t.Helper()
	is := c.target.client.ImageService()
	img, err := is.Get(c.ctx, name)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range namesOf(layout.Image{Name: name, Descriptor: img.Target}) {
		if err := is.Delete(c.ctx, n); err != nil {
			c.t.Fatal(err)
		}
	}
	c.collectGarbage()
	if _, err := c.target.client.ContentStore().Info(c.ctx, img.Target.Digest); err == nil {
		c.t.Fatalf("%s is still there", name)
	}
}

func TestLostImageComesBack(t *testing.T) {
	c := newContainerd(t)
	dir := testLayout(t, "x/app:1", "x/pause:1")
	if _, err := c.importAll(dir); err != nil {
		t.Fatal(err)
	}
	c.lose("x/app:1")
	if st, err := c.importAll(dir); err != nil || st.Imported != 1 || st.Present != 1 {
		t.Errorf("import after loss: %+v, %v", st, err)
	}
}

func TestNewVersionUnderTheSameNameReplacesTheOld(t *testing.T) {
	c := newContainerd(t)
	if _, err := c.importAll(testLayout(t, "x/app:1")); err != nil {
		t.Fatal(err)
	}
	changed := t.TempDir()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "app"), []byte("new"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := build.Build(t.Context(), build.Options{LayoutDir: changed, Images: []build.Image{
		{Name: "x/app:1", Source: build.Source{RootFS: root}, Entrypoint: []string{"/app"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := c.importAll(changed); err != nil || st.Imported != 1 {
		t.Fatalf("import: %+v, %v", st, err)
	}
	got, err := c.target.client.ImageService().Get(c.ctx, "x/app:1")
	if err != nil || got.Target.Digest.String() != r[0].Digest {
		t.Errorf("image is %s, %v; want %s", got.Target.Digest, err, r[0].Digest)
	}
}

func TestOneBadImageDoesNotKeepTheOthersOutAndCanBeRepaired(t *testing.T) {
	c := newContainerd(t)
	dir := testLayout(t, "x/pause:1", "x/bad:1", "x/good:1")
	file, digest := layerOf(t, dir, "x/bad:1")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte{}, whole...)
	broken[len(broken)/2] ^= 0xff
	if err := os.WriteFile(file, broken, 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := c.importAll(dir)
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), digest) || !strings.Contains(err.Error(), "x/bad:1") {
		t.Errorf("error of a corrupt layer: %v", err)
	}
	if st.Imported != 2 || len(st.Failed) != 1 || st.Failed["x/bad:1"] == "" {
		t.Errorf("status %+v", st)
	}
	if err := os.WriteFile(file, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	if st, err = c.importAll(dir); err != nil || st.Imported != 1 || st.Present != 2 {
		t.Errorf("after repair: %+v, %v", st, err)
	}
}

func TestBrokenLayoutDoesNotKeepTheOthersOut(t *testing.T) {
	c := newContainerd(t)
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "index.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := c.importAll(broken, testLayout(t, "x/app:1"))
	if err == nil || !strings.Contains(err.Error(), broken) || st.Imported != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestMissingSandboxImageIsAnError(t *testing.T) {
	c := newContainerd(t)
	dir := testLayout(t, "x/app:1")
	if _, err := c.importFirst("x/pause:1", dir); err == nil || !strings.Contains(err.Error(), "x/pause:1 is in none of the layouts") {
		t.Errorf("no sandbox image anywhere: %v", err)
	}
	if st, err := c.importFirst("x/pause:1", dir, testLayout(t, "x/pause:1")); err != nil || st.Imported != 1 {
		t.Errorf("once it is there: %+v, %v", st, err)
	}
	if _, err := c.importFirst("x/pause:1"); err != nil {
		t.Errorf("imported earlier, from a layout that is gone: %v", err)
	}
}

func layerOf(t *testing.T, dir, name string) (file, digest string) {
	t.Helper()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range l.Images {
		if img.Name != name {
			continue
		}
		_, m, err := l.Manifest(img.Descriptor, "linux", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		return l.BlobPath(m.Layers[0].Digest), m.Layers[0].Digest.String()
	}
	t.Fatalf("no %s in %s", name, dir)
	return "", ""
}

// differ is the half of containerd's diff service that import uses; the other
// half is nil.
type differ struct {
	diff.Applier
	diff.Comparer
}
