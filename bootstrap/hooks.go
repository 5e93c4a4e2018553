package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

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

const (
	// hookQuiet is how long a hook may fail without a word. At a first start the
	// namespaces of some roles come a moment later than the roles.
	hookQuiet = 10 * time.Second
	// hookEager is the pause between attempts for that long, hookPause the one after it.
	hookEager = 50 * time.Millisecond
	hookPause = time.Second
)

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

// insist tries until it works or ctx ends.
//
// A hook that fails ends the process, which is what upstream does when the roles are
// not there after 30 seconds. A machine that is slow would begin again with everything,
// and be no faster. Here the server is just not ready yet, and the log says why.
func insist(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error) {
	start, pause := time.Now(), hookEager
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if took := time.Since(start); took > hookQuiet {
			log.Warn("the API server still waits for "+what, "for", took.Round(time.Second), "err", err)
			pause = hookPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}
