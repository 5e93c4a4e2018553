package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"

	"github.com/bothy-os/bothy/images/gate"
)

// tasks guards the start of containers. It is the last point: what passes runs.
type tasks struct {
	tasksapi.TasksClient
	guard *Guard
}

// Create judges the container again, for the policy may have changed since it
// was created, and what is to be mounted as its root.
func (t *tasks) Create(ctx context.Context, req *tasksapi.CreateTaskRequest, opts ...grpc.CallOption) (*tasksapi.CreateTaskResponse, error) {
	if t.guard.cfg.Gate.InForce() {
		if err := t.guard.task(ctx, req); err != nil {
			return nil, denied(err)
		}
	}
	return t.TasksClient.Create(ctx, req, opts...)
}

func (g *Guard) task(ctx context.Context, req *tasksapi.CreateTaskRequest) error {
	s := g.stack.Load()
	c, err := s.record(ctx, req.GetContainerID())
	if err != nil {
		return errgrpc.ToGRPC(err)
	}
	if err := g.container(ctx, gate.Task, c); err != nil {
		return err
	}
	if err := g.judgeTask(ctx, s, c, req); err != nil {
		return g.cfg.Gate.Refuse(gate.Task, c.GetImage(), fmt.Errorf("image policy denies starting container %s: %w", c.GetID(), err))
	}
	return nil
}

func (g *Guard) judgeTask(ctx context.Context, s *stack, c *containersapi.Container, req *tasksapi.CreateTaskRequest) error {
	if req.GetRuntimePath() != "" && req.GetRuntimePath() != g.cfg.Shim {
		return fmt.Errorf("its runtime is the program %s; only %s may run containers", req.GetRuntimePath(), g.cfg.Shim)
	}
	if req.GetCheckpoint() != nil {
		return errors.New("it is to be restored from a checkpoint, which is not an image")
	}
	if err := g.ourOptions(req.GetOptions()); err != nil {
		return err
	}
	sn := s.snapshotters[c.GetSnapshotter()]
	mounts, err := sn.Mounts(ctx, c.GetSnapshotKey())
	if err != nil {
		return fmt.Errorf("its snapshot: %w", err)
	}
	if !slices.EqualFunc(mounts, req.GetRootfs(), sameMount) {
		return errors.New("what is to be mounted as its root is not its snapshot")
	}
	return nil
}

// sameMount compares what is asked for with what it has to be. The label of
// SELinux is added by clients.
func sameMount(want mount.Mount, got *types.Mount) bool {
	options := slices.DeleteFunc(slices.Clone(got.GetOptions()), func(o string) bool { return strings.HasPrefix(o, `context="`) })
	return want.Type == got.GetType() && want.Source == got.GetSource() && want.Target == got.GetTarget() && slices.Equal(want.Options, options)
}

// record reads the record of a container.
func (s *stack) record(ctx context.Context, id string) (*containersapi.Container, error) {
	c, err := s.containers.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return &containersapi.Container{
		ID: c.ID, Image: c.Image, Snapshotter: c.Snapshotter, SnapshotKey: c.SnapshotKey,
		Runtime: &containersapi.Container_Runtime{Name: c.Runtime.Name, Options: typeurl.MarshalProto(c.Runtime.Options)},
		Spec:    typeurl.MarshalProto(c.Spec),
	}, nil
}
