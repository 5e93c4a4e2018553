package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/typeurl/v2"
	"github.com/distribution/reference"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/verify"
)

// imageNameAnnotation is where the CRI notes the name that a pod's author wrote.
const imageNameAnnotation = "io.kubernetes.cri.image-name"

// runtimeName is the only runtime there is.
const runtimeName = "io.containerd.runc.v2"

// containers guards the records of containers.
type containers struct {
	containersapi.ContainersClient
	guard *Guard
}

// Create refuses a container whose image may not run.
func (c *containers) Create(ctx context.Context, req *containersapi.CreateContainerRequest, opts ...grpc.CallOption) (*containersapi.CreateContainerResponse, error) {
	if err := c.guard.container(ctx, gate.Container, req.GetContainer()); err != nil {
		return nil, denied(err)
	}
	return c.ContainersClient.Create(ctx, req, opts...)
}

// Update refuses to make such a container of another. What stays as it was is
// not judged again: the resources of a running container can be changed after
// the policy was.
func (c *containers) Update(ctx context.Context, req *containersapi.UpdateContainerRequest, opts ...grpc.CallOption) (*containersapi.UpdateContainerResponse, error) {
	if c.guard.cfg.Gate.InForce() {
		if err := c.judgeUpdate(ctx, req); err != nil {
			return nil, denied(err)
		}
	}
	return c.ContainersClient.Update(ctx, req, opts...)
}

func (c *containers) judgeUpdate(ctx context.Context, req *containersapi.UpdateContainerRequest) error {
	now, err := c.Get(ctx, &containersapi.GetContainerRequest{ID: req.GetContainer().GetID()})
	if err != nil {
		return err
	}
	next := updated(now.Container, req)
	same := next.Image == now.Container.Image && next.SnapshotKey == now.Container.SnapshotKey && next.Snapshotter == now.Container.Snapshotter
	if same && sameOrigin(next.Spec, now.Container.Spec) {
		return nil
	}
	return c.guard.container(ctx, gate.Container, next)
}

// updated is the container as it would be, in what matters here.
func updated(now *containersapi.Container, req *containersapi.UpdateContainerRequest) *containersapi.Container {
	next := &containersapi.Container{
		ID: now.ID, Image: now.Image, Snapshotter: now.Snapshotter, SnapshotKey: now.SnapshotKey, Runtime: now.Runtime, Spec: now.Spec,
	}
	paths := req.GetUpdateMask().GetPaths()
	given := func(field string) bool { return len(paths) == 0 || slices.Contains(paths, field) }
	if given("image") {
		next.Image = req.Container.Image
	}
	if given("snapshotkey") {
		next.SnapshotKey = req.Container.SnapshotKey
	}
	if given("snapshotter") {
		next.Snapshotter = req.Container.Snapshotter
	}
	if given("spec") {
		next.Spec = req.Container.Spec
	}
	if given("runtime") && req.Container.Runtime != nil {
		next.Runtime = req.Container.Runtime
	}
	return next
}

// sameOrigin says that two specifications take their programs from the same
// place.
func sameOrigin(a, b *anypb.Any) bool {
	x, errX := readSpec(a)
	y, errY := readSpec(b)
	return errX == nil && errY == nil && x.origin() == y.origin()
}

// spec is the part of a container's specification that says what it runs.
type spec struct {
	Root        *specs.Root       `json:"root"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
}

func readSpec(text *anypb.Any) (*spec, error) {
	s := &spec{}
	if text == nil {
		return nil, errors.New("the container has no specification")
	}
	if err := json.Unmarshal(text.GetValue(), s); err != nil {
		return nil, fmt.Errorf("the container's specification: %w", err)
	}
	return s, nil
}

func (s *spec) origin() string {
	text, _ := json.Marshal(s) // plain strings
	return string(text)
}

// container judges a container.
func (g *Guard) container(ctx context.Context, point string, c *containersapi.Container) error {
	if !g.cfg.Gate.InForce() {
		return nil
	}
	if err := g.judgeContainer(ctx, point, c); err != nil {
		var known *verify.DeniedError
		if errors.As(err, &known) {
			return err // counted already
		}
		return g.cfg.Gate.Refuse(point, c.GetImage(), fmt.Errorf("image policy denies container %s: %w", c.GetID(), err))
	}
	return nil
}

func (g *Guard) judgeContainer(ctx context.Context, point string, c *containersapi.Container) error {
	s, err := readSpec(c.GetSpec())
	if err != nil {
		return err
	}
	if err := g.runsOurs(c.GetRuntime()); err != nil {
		return err
	}
	if err := errors.Join(g.rootInside(s), g.hooksOutside(s)); err != nil {
		return err
	}
	stack := g.stack.Load()
	image, err := stack.images.Get(ctx, c.GetImage())
	if err != nil {
		return fmt.Errorf("it names the image %q, which containerd does not have: %w", c.GetImage(), err)
	}
	found, err := stack.known.of(ctx, stack.content, image.Target)
	if err != nil {
		return err
	}
	parent, err := stack.parent(ctx, c.GetSnapshotter(), c.GetSnapshotKey())
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(slices.Clone(found), func(v variant) bool { return v.chain != parent })
	if len(found) == 0 {
		return fmt.Errorf("its file system is not that of the image %s (%s) which it names", image.Name, image.Target.Digest)
	}
	names, err := stack.names(ctx, image, s.Annotations[imageNameAnnotation])
	if err != nil {
		return err
	}
	return g.cfg.Gate.CheckAny(point, candidates(names, found))
}

// parent returns the snapshot of which a container's own is the top.
func (s *stack) parent(ctx context.Context, snapshotter, key string) (string, error) {
	if key == "" {
		return "", errors.New("it has no snapshot: its file system could be anything")
	}
	if becomesLayer(key) {
		return "", errors.New("its snapshot is a layer in the making, into which anything may have been unpacked")
	}
	sn := s.snapshotters[snapshotter]
	if sn == nil {
		return "", fmt.Errorf("there is no snapshotter %q", snapshotter)
	}
	info, err := sn.Stat(ctx, key)
	if err != nil {
		return "", fmt.Errorf("its snapshot: %w", err)
	}
	return info.Parent, nil
}

// names are those by which an image is judged: the one that the pod's author
// wrote if the image has it, the one that the container has if it is a name, or
// else all that the image has.
func (s *stack) names(ctx context.Context, image images.Image, wanted string) ([]string, error) {
	if s.isName(ctx, wanted, image) {
		return []string{wanted}, nil
	}
	if !bareID.MatchString(image.Name) {
		return []string{image.Name}, nil
	}
	all, err := s.images.List(ctx, "target.digest=="+image.Target.Digest.String())
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range all {
		if i.Target.Digest == image.Target.Digest && !bareID.MatchString(i.Name) {
			out = append(out, i.Name)
		}
	}
	return out, nil
}

// isName says that an image has a name. What a container claims is no proof, and
// neither is the beginning of an id.
func (s *stack) isName(ctx context.Context, name string, image images.Image) bool {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return false
	}
	named, err := s.images.Get(ctx, ref.String())
	return err == nil && named.Target.Digest == image.Target.Digest
}

// rootInside refuses specifications that run programs of another place than the
// snapshot.
func (g *Guard) rootInside(s *spec) error {
	if s.Root == nil || s.Root.Path == "" || filepath.IsAbs(s.Root.Path) || !filepath.IsLocal(s.Root.Path) {
		return errors.New("its root is not the snapshot's: root.path must be relative to the bundle")
	}
	return nil
}

// hooksOutside refuses hooks, which run on the machine and not in the container,
// that come out of an image. Those of StartContainer run in the container.
func (g *Guard) hooksOutside(s *spec) error {
	if s.Hooks == nil {
		return nil
	}
	h := s.Hooks
	for _, hook := range slices.Concat(h.Prestart, h.CreateRuntime, h.CreateContainer, h.Poststart, h.Poststop) { //nolint:staticcheck // runc still runs those of Prestart
		path, err := filepath.EvalSymlinks(hook.Path)
		if err != nil {
			return fmt.Errorf("its hook: %w", err)
		}
		if inside, err := filepath.Rel(g.cfg.Root, path); err != nil || filepath.IsLocal(inside) {
			return fmt.Errorf("its hook %s lies among the files of images", hook.Path)
		}
	}
	return nil
}

// runsOurs refuses other programs for running containers.
func (g *Guard) runsOurs(r *containersapi.Container_Runtime) error {
	if r.GetName() != runtimeName && r.GetName() != g.cfg.Shim {
		return fmt.Errorf("its runtime is %q; only %s may run containers", r.GetName(), runtimeName)
	}
	return g.ourOptions(r.GetOptions())
}

func (g *Guard) ourOptions(o *anypb.Any) error {
	if o == nil || o.TypeUrl == "" {
		return nil
	}
	v, err := typeurl.UnmarshalAny(o)
	if err != nil {
		return fmt.Errorf("the options of its runtime: %w", err)
	}
	options, ok := v.(*runcoptions.Options)
	if !ok {
		return fmt.Errorf("the options of its runtime are of the unknown kind %s", o.TypeUrl)
	}
	if options.BinaryName != "" && options.BinaryName != g.cfg.Runc {
		return fmt.Errorf("its runtime is the program %s; only %s may run containers", options.BinaryName, g.cfg.Runc)
	}
	if strings.TrimSpace(options.CriuImagePath) != "" {
		return errors.New("it is to be restored from a checkpoint, which is not an image")
	}
	return nil
}
