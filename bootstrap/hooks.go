package bootstrap

import (
	"context"
	"errors"
	"fmt"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
)

// replacedHooks are upstream's start-up hooks that ours stand for. The names stay: they are
// what /readyz lists, and tools look for them there.
var replacedHooks = []string{rbacrest.PostStartHookName, schedulingrest.PostStartHookName}

// addHooks adds our replacements of upstream's hooks. Hooks run when the
// server listens, so this is also where others learn that it does.
func (cp *ControlPlane) addHooks(server *aggregatorapiserver.APIAggregator) error {
	loopback := rest.CopyConfig(server.GenericAPIServer.LoopbackClientConfig)
	loopback.QPS = -1
	loopback.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	api := &apiServer{loopback: loopback, client: client}
	roles := func(hook genericapiserver.PostStartHookContext) error {
		cp.api.set(api)
		insist(hook, cp.cfg.Log, "the default roles", func(ctx context.Context) error { return ensureRoles(ctx, client) })
		return nil
	}
	classes := func(hook genericapiserver.PostStartHookContext) error {
		insist(hook, cp.cfg.Log, "the default priority classes", func(ctx context.Context) error { return ensurePriorityClasses(ctx, client) })
		return nil
	}
	return errors.Join(
		server.GenericAPIServer.AddPostStartHook(rbacrest.PostStartHookName, roles),
		server.GenericAPIServer.AddPostStartHook(schedulingrest.PostStartHookName, classes),
	)
}
