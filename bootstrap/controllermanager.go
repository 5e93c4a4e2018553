package bootstrap

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kcmapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// runControllerManager runs until ctx ends. It is ready when the default
// service account exists, without which no pod is admitted.
func (cp *ControlPlane) runControllerManager(ctx context.Context, ready func()) error {
	api, err := cp.api.wait(ctx)
	if err != nil {
		return err
	}
	config, err := cp.options.controllerManager.Config(ctx, kcmapp.KnownControllers(), kcmapp.ControllersDisabledByDefault(), kcmapp.ControllerAliases())
	if err != nil {
		return fmt.Errorf("set up kube-controller-manager: %w", err)
	}
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		err := poll(waitCtx, 20*time.Millisecond, func() bool {
			_, err := api.client.CoreV1().ServiceAccounts("default").Get(waitCtx, "default", metav1.GetOptions{})
			return err == nil
		})
		if err == nil {
			ready()
		}
	}()
	return kcmapp.Run(ctx, config.Complete())
}
