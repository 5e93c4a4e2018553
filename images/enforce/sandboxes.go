package enforce

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/plugins"

	"github.com/bothy-os/bothy/images/gate"
)

// shimController starts sandboxes that are not made of containers, from whatever
// program and mounts a client names. Pods need no such thing.
const shimController = string(plugins.SandboxControllerPlugin) + ".shim"

// sandboxes guards it.
type sandboxes struct {
	sandbox.Controller
	guard *Guard
}

// Create refuses sandboxes without an image.
func (s *sandboxes) Create(ctx context.Context, info sandbox.Sandbox, opts ...sandbox.CreateOpt) error {
	if s.guard.cfg.Gate.InForce() {
		return nativelyDenied(s.guard.cfg.Gate.Refuse(gate.Container, info.ID, errors.New("image policy: a sandbox has to be a container of an image")))
	}
	return s.Controller.Create(ctx, info, opts...)
}
