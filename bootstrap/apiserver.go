package bootstrap

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	encryptioncontroller "k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"

	"github.com/bothy-os/bothy/bootstrap/listen"
)

const (
	// Upstream looks for changes of the encryption configuration once a
	// minute, which makes a rotation take three.
	encryptionPoll = 5 * time.Second
	readyPoll      = 10 * time.Millisecond
)

// apiServer is what others in this process may use of the running API server.
type apiServer struct {
	// loopback has all rights and needs no certificate; it ends with the
	// process.
	loopback *rest.Config
	client   kubernetes.Interface
}

// runAPIServer runs until ctx ends. It is ready when /readyz says so, which
// includes the default roles.
func (cp *ControlPlane) runAPIServer(ctx context.Context, ready func()) error {
	addr := netip.AddrPortFrom(cp.cfg.NodeIP, uint16(cp.cfg.port()))
	if err := listen.Check(addr, "spec.controlPlane.port"); err != nil {
		return err
	}
	server, err := cp.buildAPIServer(ctx)
	if err != nil {
		return fmt.Errorf("set up the API server: %w", err)
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare the API server: %w", err)
	}

	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		api, err := cp.api.wait(waitCtx)
		if err == nil && waitReady(waitCtx, api.client) == nil {
			ready()
		}
	}()
	if err := prepared.Run(ctx); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	return ctx.Err()
}

func (cp *ControlPlane) buildAPIServer(ctx context.Context) (*aggregatorapiserver.APIAggregator, error) {
	encryptioncontroller.EncryptionConfigFileChangePollDuration = encryptionPoll
	completed, err := cp.options.apiServer.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	if completed.InformerName, err = cache.NewInformerName("kube-apiserver"); err != nil {
		return nil, err
	}
	config, err := apiserverapp.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	generic := config.KubeAPIs.ControlPlane.Generic
	generic.DisabledPostStartHooks.Insert(replacedHooks...)
	// Requests are authorised by the outermost server; the others ask for single questions.
	for _, c := range []*genericapiserver.Config{&config.Aggregator.GenericConfig.Config, &config.ApiExtensions.GenericConfig.Config, generic} {
		c.Authorization.Authorizer = cp.enrolledOnly(c.Authorization.Authorizer)
	}

	completedConfig, err := config.Complete()
	if err != nil {
		return nil, err
	}
	server, err := apiserverapp.CreateServerChain(completedConfig)
	if err != nil {
		return nil, err
	}
	generic.DisabledPostStartHooks.Delete(replacedHooks...) // ours have their names
	return server, cp.addHooks(server)
}

func waitReady(ctx context.Context, client kubernetes.Interface) error {
	return poll(ctx, readyPoll, func() bool {
		code := 0
		client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code)
		return code == http.StatusOK
	})
}

// poll asks until the answer is yes or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() bool) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}
