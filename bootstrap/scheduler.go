package bootstrap

import (
	"context"
	"fmt"

	schedapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// runScheduler runs until ctx ends. It is ready when it is set up: pods that
// come earlier than its caches wait in the API.
func (cp *ControlPlane) runScheduler(ctx context.Context, ready func()) error {
	config, scheduler, err := schedapp.Setup(ctx, cp.options.scheduler)
	if err != nil {
		return fmt.Errorf("set up kube-scheduler: %w", err)
	}
	ready()
	return schedapp.Run(ctx, config, scheduler)
}
