package enforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

// site is a guard in a containerd that is its stores alone.
type site struct {
	*Guard
	t     testing.TB
	ctx   context.Context
	key   *cosigntest.Key
	store *signatures.Store
	dir   string
	sn    snapshots.Snapshotter
}

func newSite(t testing.TB) *site {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	must(t, err)
	sn, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	must(t, err)
	file, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{"native": sn})
	s := &site{t: t, ctx: inKubernetes(t.Context()), key: cosigntest.NewKey(t), store: signatures.NewStore(filepath.Join(dir, "signatures")), dir: dir}
	must(t, db.Init(s.ctx))
	state := filepath.Join(dir, "policy.json")
	s.Guard = New(Config{
		Gate: gate.New(gate.Config{File: state, Signatures: s.store, Log: slog.New(slog.DiscardHandler)}),
		Root: dir, Shim: "/bin/shim", Runc: "/bin/runc",
	})
	quoted, err := json.Marshal(string(s.key.PEM(t)))
	must(t, err)
	must(t, gate.Write(state, "one", policy.Files{policy.File: []byte("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"example.org/**\"}]\n  authorities: [{key: {data: " + string(quoted) + "}}]\n")}))
	s.use(&stack{images: metadata.NewImageStore(db), containers: metadata.NewContainerStore(db), content: db.ContentStore(), snapshotters: db.Snapshotters()})
	s.sn = s.guarded(db.Snapshotters())["native"]
	return s
}

// write puts a document into the content store.
func (s *site) write(mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	data, err := json.Marshal(v)
	must(s.t, err)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	must(s.t, content.WriteBlob(s.ctx, s.stack.Load().content, d.Digest.String(), bytes.NewReader(data), d))
	return d
}

// manifest writes an image whose only layer has the given content, unpacked.
func (s *site) manifest(layer string) (ocispec.Descriptor, string) {
	s.t.Helper()
	diff := digest.FromString(layer)
	config := s.write(ocispec.MediaTypeImageConfig, ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}}})
	m := s.write(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config})
	chain := identity.ChainID([]digest.Digest{diff}).String()
	sn := s.stack.Load().snapshotters["native"]
	if _, err := sn.Stat(s.ctx, chain); err == nil {
		return m, chain
	}
	_, err := sn.Prepare(s.ctx, "making "+chain, "")
	must(s.t, err)
	must(s.t, sn.Commit(s.ctx, chain, "making "+chain))
	return m, chain
}

func (s *site) name(name string, target ocispec.Descriptor) {
	s.t.Helper()
	_, err := s.stack.Load().images.Create(s.ctx, images.Image{Name: name, Target: target})
	must(s.t, err)
}

func (s *site) sign(d ocispec.Descriptor) {
	s.t.Helper()
	payload := cosigntest.Payload(d.Digest.String())
	must(s.t, s.store.Add(&cosign.Signatures{Digest: d.Digest.String(), Payloads: []cosign.Attached{{Name: "x", Content: payload, Annotations: s.key.Annotations(s.t, payload)}}}))
}

// snapshot makes the file system of a container, behind the guard's back.
func (s *site) snapshot(key, parent string) {
	s.t.Helper()
	_, err := s.stack.Load().snapshotters["native"].Prepare(s.ctx, key, parent)
	must(s.t, err)
}

// record is the record of a container.
func record(image, snapshot, spec string) *containersapi.Container {
	return &containersapi.Container{
		ID: "c", Image: image, Snapshotter: "native", SnapshotKey: snapshot,
		Runtime: &containersapi.Container_Runtime{Name: runtimeName}, Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(spec)},
	}
}

const plainSpec = `{"root":{"path":"rootfs"}}`

func (s *site) refuses(what string, err error, want string) {
	s.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// TestContainers is the table of what must not become a container.
func TestContainers(t *testing.T) {
	s := newSite(t)
	good, goodChain := s.manifest("good")
	evil, evilChain := s.manifest("evil")
	s.sign(good)
	s.name("example.org/good:1", good)
	s.name("example.org/evil:1", evil)
	s.name("sha256:"+strings.Repeat("9", 64), good)
	s.name("evil.org/good:1", good)
	s.snapshot("good", goodChain)
	s.snapshot("evil", evilChain)
	ask := func(c *containersapi.Container) error { return s.container(s.ctx, gate.Container, c) }

	for what, c := range map[string]*containersapi.Container{
		"with a hook of the machine": record("example.org/good:1", "good", `{"root":{"path":"rootfs"},"hooks":{"createRuntime":[{"path":"/bin/sh"}]}}`),
		"by name":                    record("example.org/good:1", "good", plainSpec),
		"by id":                      record("sha256:"+strings.Repeat("9", 64), "good", plainSpec),
		"by the name that the pod's author wrote": record("sha256:"+strings.Repeat("9", 64), "good", `{"root":{"path":"rootfs"},"annotations":{"io.kubernetes.cri.image-name":"example.org/good:1"}}`),
	} {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	options := func(o *runcoptions.Options) *containersapi.Container {
		c := record("example.org/good:1", "good", plainSpec)
		packed, err := typeurl.MarshalAny(o)
		must(t, err)
		c.Runtime.Options = typeurl.MarshalProto(packed)
		return c
	}
	if err := ask(options(&runcoptions.Options{BinaryName: "/bin/runc"})); err != nil {
		t.Error(err)
	}
	runtime := record("example.org/good:1", "good", plainSpec)
	runtime.Runtime.Name = "/tmp/evil"
	for what, c := range map[string]struct {
		record *containersapi.Container
		want   string
	}{
		"unsigned":                                {record("example.org/evil:1", "evil", plainSpec), "has no signature"},
		"files of another image":                  {record("example.org/good:1", "evil", plainSpec), "not that of the image example.org/good:1"},
		"name of another image":                   {record("example.org/evil:1", "good", plainSpec), "not that of the image example.org/evil:1"},
		"the name of another image":               {record("example.org/evil:1", "evil", `{"root":{"path":"rootfs"},"annotations":{"io.kubernetes.cri.image-name":"example.org/good:1"}}`), "has no signature"},
		"a name that it has and nothing is about": {record("example.org/good:1", "good", `{"root":{"path":"rootfs"},"annotations":{"io.kubernetes.cri.image-name":"evil.org/good:1"}}`), "no policy in"},
		"no image":                                {record("", "good", plainSpec), "containerd does not have"},
		"an image that is not":                    {record("example.org/none:1", "good", plainSpec), "containerd does not have"},
		"no snapshot":                             {record("example.org/good:1", "", plainSpec), "has no snapshot"},
		"a snapshot that is not":                  {record("example.org/good:1", "none", plainSpec), "its snapshot"},
		"no root":                                 {record("example.org/good:1", "good", `{}`), "root.path"},
		"root elsewhere":                          {record("example.org/good:1", "good", `{"root":{"path":"/tmp/evil"}}`), "root.path"},
		"root beside":                             {record("example.org/good:1", "good", `{"root":{"path":"../evil"}}`), "root.path"},
		"no specification":                        {record("example.org/good:1", "good", ``), "specification"},
		"another runtime":                         {runtime, `its runtime is "/tmp/evil"`},
		"a hook out of an image":                  {record("example.org/good:1", "good", fmt.Sprintf(`{"root":{"path":"rootfs"},"hooks":{"createRuntime":[{"path":%q}]}}`, filepath.Join(s.dir, "meta.db"))), "among the files of images"},
		"a hook that is not":                      {record("example.org/good:1", "good", `{"root":{"path":"rootfs"},"hooks":{"poststop":[{"path":"/none"}]}}`), "its hook"},
		"another runc":                            {options(&runcoptions.Options{BinaryName: "/tmp/evil"}), "its runtime is the program /tmp/evil"},
		"a checkpoint":                            {options(&runcoptions.Options{CriuImagePath: "/tmp/evil"}), "checkpoint"},
	} {
		s.refuses(what, ask(c.record), c.want)
	}
}

// TestSwappedManifest: content that was changed on the disk is found out,
// although nothing else looks at it again.
func TestSwappedManifest(t *testing.T) {
	for _, what := range []string{"index", "manifest", "config"} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			child, chain := s.manifest("good")
			index := s.write(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child}})
			s.sign(index)
			s.name("example.org/good:1", index)
			s.snapshot("good", chain)
			var m ocispec.Manifest
			must(t, read(s.ctx, s.stack.Load().content, child, &m))
			victim := map[string]digest.Digest{"index": index.Digest, "manifest": child.Digest, "config": m.Config.Digest}[what]
			file := filepath.Join(s.dir, "content", "blobs", "sha256", victim.Encoded())
			text, err := os.ReadFile(file)
			must(t, err)
			must(t, os.Chmod(file, 0o600))
			must(t, os.WriteFile(file, bytes.Replace(text, []byte(`"`), []byte(` `), 1), 0o600))
			s.refuses(what, s.container(s.ctx, gate.Container, record("example.org/good:1", "good", plainSpec)), "its content hashes to")
		})
	}
}

// TestIndex: the signature of an index covers the manifests that it names, that
// of a manifest no other of its index.
func TestIndex(t *testing.T) {
	s := newSite(t)
	good, goodChain := s.manifest("good")
	evil, evilChain := s.manifest("evil")
	s.snapshot("good", goodChain)
	s.snapshot("evil", evilChain)
	both := s.write(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{good, evil}})
	s.sign(good)
	s.name("example.org/app:1", both)
	if err := s.container(s.ctx, gate.Container, record("example.org/app:1", "good", plainSpec)); err != nil {
		t.Error(err)
	}
	s.refuses("the other manifest", s.container(s.ctx, gate.Container, record("example.org/app:1", "evil", plainSpec)), "has no signature")
	s.sign(both)
	if err := s.container(s.ctx, gate.Container, record("example.org/app:1", "evil", plainSpec)); err != nil {
		t.Error(err)
	}
	polyglot := s.write(ocispec.MediaTypeImageManifest, map[string]any{"config": good, "manifests": []ocispec.Descriptor{evil}})
	s.sign(polyglot)
	s.name("example.org/two:1", polyglot)
	s.refuses("both in one", s.container(s.ctx, gate.Container, record("example.org/two:1", "evil", plainSpec)), "lets two readers see two images")
}

// TestUpdates: a container cannot become another, and one that stays can change.
func TestUpdates(t *testing.T) {
	s := newSite(t)
	good, goodChain := s.manifest("good")
	_, evilChain := s.manifest("evil")
	s.sign(good)
	s.name("example.org/good:1", good)
	s.snapshot("good", goodChain)
	s.snapshot("evil", evilChain)
	inner := &fakeContainers{now: record("example.org/good:1", "good", plainSpec)}
	c := &containers{ContainersClient: inner, guard: s.Guard}
	update := func(to *containersapi.Container, fields ...string) error {
		_, err := c.Update(s.ctx, &containersapi.UpdateContainerRequest{Container: to, UpdateMask: protobufMask(fields)})
		return err
	}
	s.refuses("files", update(record("example.org/good:1", "evil", plainSpec), "snapshotkey"), "not that of the image")
	s.refuses("root", update(record("example.org/good:1", "good", `{"root":{"path":"/"}}`), "spec"), "root.path")
	s.refuses("all", update(record("example.org/good:1", "evil", plainSpec)), "not that of the image")
	if err := update(record("", "", `{"root":{"path":"rootfs"},"linux":{}}`), "spec"); err != nil {
		t.Errorf("resources cannot be changed: %v", err)
	}
	if err := update(record("example.org/none:1", "none", ""), "labels"); err != nil {
		t.Errorf("labels cannot be changed: %v", err)
	}
	if inner.updates != 2 {
		t.Errorf("%d updates came through", inner.updates)
	}
}

// fakeContainers has one container.
type fakeContainers struct {
	containersapi.ContainersClient
	now     *containersapi.Container
	updates int
}

func (f *fakeContainers) Get(context.Context, *containersapi.GetContainerRequest, ...grpc.CallOption) (*containersapi.GetContainerResponse, error) {
	return &containersapi.GetContainerResponse{Container: f.now}, nil
}

func (f *fakeContainers) Update(context.Context, *containersapi.UpdateContainerRequest, ...grpc.CallOption) (*containersapi.UpdateContainerResponse, error) {
	f.updates++
	return &containersapi.UpdateContainerResponse{}, nil
}

// TestTasks: at the start everything counts again, and so does the root.
func TestTasks(t *testing.T) {
	s := newSite(t)
	good, chain := s.manifest("good")
	s.sign(good)
	s.name("example.org/good:1", good)
	s.snapshot("good", chain)
	r := record("example.org/good:1", "good", plainSpec)
	stack := s.stack.Load()
	_, err := stack.containers.Create(s.ctx, protobufContainer(r))
	must(t, err)
	mounts, err := stack.snapshotters["native"].Mounts(s.ctx, "good")
	must(t, err)
	rootfs := func() (out []*types.Mount) {
		for _, m := range mounts {
			out = append(out, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
		}
		return out
	}
	started := 0
	guarded := &tasks{TasksClient: fakeTasks{started: &started}, guard: s.Guard}
	start := func(change func(*tasksapi.CreateTaskRequest)) error {
		req := &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: rootfs()}
		change(req)
		_, err := guarded.Create(s.ctx, req)
		return err
	}
	if err := start(func(*tasksapi.CreateTaskRequest) {}); err != nil {
		t.Error(err)
	}
	if err := start(func(r *tasksapi.CreateTaskRequest) { r.Rootfs[0].Options = append(r.Rootfs[0].Options, `context="x"`) }); err != nil {
		t.Error(err)
	}
	s.refuses("another root", start(func(r *tasksapi.CreateTaskRequest) { r.Rootfs[0].Source = "/tmp" }), "not its snapshot")
	s.refuses("no root", start(func(r *tasksapi.CreateTaskRequest) { r.Rootfs = nil }), "not its snapshot")
	s.refuses("one more", start(func(r *tasksapi.CreateTaskRequest) { r.Rootfs = append(r.Rootfs, r.Rootfs[0]) }), "not its snapshot")
	s.refuses("runtime", start(func(r *tasksapi.CreateTaskRequest) { r.RuntimePath = "/tmp/evil" }), "only /bin/shim")
	s.refuses("checkpoint", start(func(r *tasksapi.CreateTaskRequest) { r.Checkpoint = &types.Descriptor{} }), "checkpoint")
	s.refuses("no container", start(func(r *tasksapi.CreateTaskRequest) { r.ContainerID = "none" }), "not found")
	must(t, gate.Write(filepath.Join(s.dir, "policy.json"), "two", policy.Files{policy.File: []byte("apiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: x}\nspec: {noMatch: deny}\n")}))
	s.refuses("the policy changed", start(func(*tasksapi.CreateTaskRequest) {}), "no policy in")
	if started != 2 {
		t.Errorf("%d tasks started", started)
	}
}

type fakeTasks struct {
	tasksapi.TasksClient
	started *int
}

func (f fakeTasks) Create(context.Context, *tasksapi.CreateTaskRequest, ...grpc.CallOption) (*tasksapi.CreateTaskResponse, error) {
	*f.started++
	return &tasksapi.CreateTaskResponse{}, nil
}

// TestNamesAndVolumes: an image that may not run gets no name, and its files go
// nowhere.
func TestNamesAndVolumes(t *testing.T) {
	s := newSite(t)
	good, goodChain := s.manifest("good")
	evil, evilChain := s.manifest("evil")
	artifact := s.write(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: s.write("application/vnd.oci.empty.v1+json", struct{}{})})
	s.sign(good)
	named := func(name string, d ocispec.Descriptor) error {
		return s.named(s.ctx, &imagesapi.Image{Name: name, Target: &types.Descriptor{Digest: d.Digest.String(), Size: d.Size}})
	}
	for name, d := range map[string]ocispec.Descriptor{"example.org/good:1": good, "sha256:" + strings.Repeat("9", 64): evil, "example.org/good:sha256-x.sig": artifact} {
		if err := named(name, d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.refuses("unsigned", named("example.org/evil:1", evil), "has no signature")
	s.refuses("nobody's", named("evil.org/good:1", good), "no policy in")
	s.refuses("another's digest", named("example.org/good@"+evil.Digest.String(), good), "digest of something else")
	s.refuses("not here", named("example.org/x:1", ocispec.Descriptor{Digest: digest.FromString("x")}), "has no signature")

	s.name("example.org/good:1", good)
	s.name("example.org/evil:1", evil)
	if _, err := s.sn.Prepare(s.ctx, "volume", goodChain); err != nil {
		t.Error(err)
	}
	if _, err := s.sn.Prepare(s.ctx, "extract-1 x", evilChain); err != nil {
		t.Error(err)
	}
	_, err := s.sn.View(s.ctx, "view", evilChain)
	s.refuses("view", err, "has no signature")
	_, nobody := s.manifest("nobody")
	_, err = s.sn.Prepare(s.ctx, "nobody", nobody)
	s.refuses("no image", err, "the layers of no image")
}

// TestLayers: a layer's name is a promise that a client cannot make.
func TestLayers(t *testing.T) {
	s := newSite(t)
	base, diff := digest.FromString("base").String(), digest.FromString("diff").String()
	top := identity.ChainID([]digest.Digest{digest.Digest(base), digest.Digest(diff)}).String()
	n := 0
	// layer makes a layer as a client does, and tampers with it.
	layer := func(name, parent string, unpacked string, tamper func(d *diffs, mounts []*types.Mount)) error {
		n++
		key := fmt.Sprintf("extract-%d %s", n, name)
		mounts, err := s.sn.Prepare(s.ctx, key, parent)
		must(t, err)
		d := &diffs{DiffClient: fakeDiffs(unpacked), guard: s.Guard}
		if unpacked != "" {
			_, err = d.Apply(s.ctx, &diffapi.ApplyRequest{Mounts: mount.ToProto(mounts)})
			must(t, err)
		}
		tamper(d, mount.ToProto(mounts))
		return s.sn.Commit(s.ctx, name, key)
	}
	not := func(*diffs, []*types.Mount) {}
	must(t, layer(base, "", base, not))
	must(t, layer(top, base, diff, not))
	s.refuses("another layer", layer(digest.FromString("x").String(), "", base, not), "the layer is "+base)
	s.refuses("another parent", layer(top, "", diff, not), "the layer is "+diff)
	s.refuses("nothing unpacked", layer(base, "", "", not), "0 layers were unpacked")
	s.refuses("one more", layer(base, "", base, func(d *diffs, m []*types.Mount) {
		_, err := d.Apply(s.ctx, &diffapi.ApplyRequest{Mounts: m})
		must(t, err)
	}), "2 layers were unpacked")
	if err := layer(base, "", base, func(d *diffs, m []*types.Mount) {
		m[0].Options = append(m[0].Options, "noatime")
		_, err := d.Apply(s.ctx, &diffapi.ApplyRequest{Mounts: m})
		s.refuses("the same place by other words", err, "into layers in the making, and nowhere else")
	}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the layer itself is in order: %v", err)
	}
	_, err := s.sn.Prepare(s.ctx, "mine", "")
	must(t, err)
	s.refuses("no layer at all", s.sn.Commit(s.ctx, digest.FromString("y").String(), "mine"), "not known what")
	must(t, s.sn.Commit(s.ctx, "by a name of its own", "mine"))
}

// fakeDiffs unpacks layers with a hash.
type fakeDiffs string

func (f fakeDiffs) Apply(context.Context, *diffapi.ApplyRequest, ...grpc.CallOption) (*diffapi.ApplyResponse, error) {
	return &diffapi.ApplyResponse{Applied: &types.Descriptor{Digest: string(f)}}, nil
}

func (fakeDiffs) Diff(context.Context, *diffapi.DiffRequest, ...grpc.CallOption) (*diffapi.DiffResponse, error) {
	return nil, errors.New("not here")
}

func TestAdmit(t *testing.T) {
	s := newSite(t)
	good, _ := s.manifest("good")
	evil, _ := s.manifest("evil")
	s.sign(good)
	s.name("example.org/good:1", good)
	s.name("example.org/good@"+good.Digest.String(), good)
	s.name("example.org/lone:1", good)
	s.name("example.org/evil:1", evil)
	for image, want := range map[string]string{
		"example.org/good:1":                       "example.org/good@" + good.Digest.String(),
		"example.org/good@" + good.Digest.String(): "example.org/good@" + good.Digest.String(),
		"example.org/lone:1":                       "example.org/lone:1", // not known by digest: the kubelet would pull
		"example.org/unseen:1":                     "example.org/unseen:1",
		"NOT A NAME":                               "NOT A NAME",
	} {
		if got, err := s.Admit(s.ctx, image); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", image, got, err, want)
		}
	}
	_, err := s.Admit(s.ctx, "example.org/evil:1")
	s.refuses("unsigned", err, "has no signature")
	_, err = s.Admit(s.ctx, "evil.org/unseen:1")
	s.refuses("unseen", err, "no policy in")
	if v, err := s.Explain(s.ctx, "example.org/evil:1"); err != nil || v.Allowed || len(v.Rules) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestPulls: before an image is fetched its signatures are, and kept.
func TestPulls(t *testing.T) {
	s := newSite(t)
	r := cosigntest.Repository(t, "team/app", true)
	glob := filepath.Join(s.dir, "policy.json")
	text, err := os.ReadFile(glob)
	must(t, err)
	var state struct {
		Files policy.Files `json:"files"`
	}
	must(t, json.Unmarshal(text, &state))
	state.Files[policy.File] = bytes.Replace(state.Files[policy.File], []byte("example.org/**"), []byte("**"), 1)
	must(t, gate.Write(glob, "two", state.Files))

	signed, unsigned := randomImage(t), randomImage(t)
	good, bad := cosigntest.Push(t, r.Tag("good"), signed), cosigntest.Push(t, r.Tag("bad"), unsigned)
	payload := cosigntest.Payload(good)
	cosigntest.AttachLegacy(t, r, good, payload, s.key.Annotations(t, payload))
	verifier := &pulls{guard: s.Guard}
	judge := func(tag, of string) *judgement {
		j, err := verifier.VerifyImage(s.ctx, r.Tag(tag).Name(), ocispec.Descriptor{Digest: digest.Digest(of), MediaType: ocispec.MediaTypeImageManifest})
		must(t, err)
		return &judgement{j.OK, j.Reason}
	}
	if j := judge("good", good); j.ok || !strings.Contains(j.reason, "has no signature") {
		t.Errorf("without a registry: %+v", j)
	}
	s.cfg.Sources = []Source{beside{nil}, beside{cosign.Remote(r)}}
	if j := judge("good", good); !j.ok {
		t.Errorf("%+v", j)
	}
	if j := judge("bad", bad); j.ok || !strings.Contains(j.reason, "has no signature") {
		t.Errorf("%+v", j)
	}
	if j := judge("good", bad); j.ok {
		t.Error("a tag that was moved after signing is pulled")
	}
	s.cfg.Sources = []Source{beside{nil}}
	if j := judge("good", good); !j.ok {
		t.Errorf("signatures were not kept: %+v", j)
	}
	if j := judge("bad", bad); j.ok || !strings.Contains(j.reason, "unplugged") {
		t.Errorf("%+v", j)
	}
}

// beside is a source of signatures; without a repository it is unplugged.
type beside struct{ cosign.Repository }

func (b beside) Collect(ctx context.Context, _, digest string) (*cosign.Signatures, error) {
	if b.Repository == nil {
		return nil, errors.New("unplugged")
	}
	return cosign.Collect(ctx, b.Repository, digest)
}

func (b beside) Manifest(ctx context.Context, _, digest string) ([]byte, error) {
	return b.Repository.Manifest(ctx, digest)
}

type judgement struct {
	ok     bool
	reason string
}

// TestPlugins: a containerd that cannot be guarded does not start.
func TestPlugins(t *testing.T) {
	s := newSite(t)
	registrations := func(ids ...string) (out []plugin.Registration) {
		for _, id := range ids {
			r := plugin.Registration{Type: plugins.ServicePlugin, ID: id, InitFn: func(*plugin.InitContext) (any, error) { return nil, fmt.Errorf("%s", id) }}
			if id == shimController {
				r.Type, r.ID = plugins.SandboxControllerPlugin, "shim"
			}
			out = append(out, r)
		}
		return out
	}
	all := []string{services.ImagesService, services.ContainersService, services.TasksService, services.SnapshotsService, services.DiffService, shimController}
	out, err := s.Plugins(registrations(all...))
	if err != nil || len(out) != 7 || out[6].Type != plugins.ImageVerifierPlugin {
		t.Errorf("%v, %v", out, err)
	}
	for i := range all {
		if _, err := s.Plugins(registrations(append(append([]string{}, all[:i]...), all[i+1:]...)...)); err == nil || !strings.Contains(err.Error(), all[i]) {
			t.Errorf("without %s: %v", all[i], err)
		}
	}
}

func TestSandboxesWithoutAnImage(t *testing.T) {
	s := newSite(t)
	s.refuses("a sandbox", (&sandboxes{guard: s.Guard}).Create(s.ctx, sandbox.Sandbox{ID: "x"}), "has to be a container of an image")
}

func BenchmarkContainer(b *testing.B) {
	s := newSite(b)
	good, chain := s.manifest("good")
	s.sign(good)
	s.name("example.org/good:1", good)
	s.snapshot("good", chain)
	r := record("example.org/good:1", "good", plainSpec)
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			must(b, s.container(s.ctx, gate.Container, r))
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			s.stack.Load().known = newVariants()
			s.cfg.Gate = gate.New(gate.Config{File: filepath.Join(s.dir, "policy.json"), Signatures: s.store, Log: slog.New(slog.DiscardHandler)})
			must(b, s.container(s.ctx, gate.Container, r))
		}
	})
	b.Run("admission", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Admit(s.ctx, "example.org/good:1")
			must(b, err)
		}
	})
}

// memory is a content store without a disk.
type memory map[digest.Digest][]byte

func (m memory) ReaderAt(_ context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	data, ok := m[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return inMemory{bytes.NewReader(data)}, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

func (m memory) put(f *testing.F, mediaType string, v any) ocispec.Descriptor {
	f.Helper()
	data, err := json.Marshal(v)
	must(f, err)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m[d.Digest] = data
	return d
}

// FuzzContent: whatever is in the content store, nothing panics, and what is taken for an image is one by all of its digests.
func FuzzContent(f *testing.F) {
	known := memory{}
	config := known.put(f, ocispec.MediaTypeImageConfig, ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("layer")}}})
	manifest := known.put(f, ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config})
	index := known.put(f, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest}})
	f.Add([]byte(`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:x","size":1}}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":3}]}`))
	f.Add(known[manifest.Digest])
	f.Add(known[index.Digest])
	f.Fuzz(func(t *testing.T, data []byte) {
		d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		store := maps.Clone(known)
		store[d.Digest] = data
		found, err := readVariants(t.Context(), store, d)
		if (len(found) == 0) == (err == nil) {
			t.Fatalf("%v, %v", found, err)
		}
		for _, v := range found {
			_, there := store[digest.Digest(v.digests[len(v.digests)-1])]
			if v.digests[0] != d.Digest.String() || !there {
				t.Fatalf("%+v of %s", v, d.Digest)
			}
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPull is what the policy adds to a pull, beside asking a registry for signatures: of an image that was judged
// before, and of one whose signatures are here.
func BenchmarkPull(b *testing.B) {
	s := newSite(b)
	good, _ := s.manifest("good")
	s.sign(good)
	verifier := &pulls{guard: s.Guard}
	judge := func() {
		j, err := verifier.VerifyImage(s.ctx, "example.org/good:1", good)
		must(b, err)
		if !j.OK {
			b.Fatal(j.Reason)
		}
	}
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			judge()
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			s.cfg.Gate = gate.New(gate.Config{File: filepath.Join(s.dir, "policy.json"), Signatures: s.store, Log: slog.New(slog.DiscardHandler)})
			judge()
		}
	})
}
