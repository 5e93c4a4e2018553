package reconciler

import (
	"context"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/flux"
)

// runFlux is the component that serves the Flux API with the settings of the
// accepted commit.
func (r *Reconciler) runFlux(ctx context.Context, ready func()) error {
	for ctx.Err() == nil {
		s, replaced := r.Accepted()
		if s == nil {
			select {
			case <-replaced:
			case <-ctx.Done():
			}
			continue
		}
		settings := s.settings.GitOps.FluxAPI
		until, cancel := context.WithCancel(ctx)
		go r.awaitOtherSettings(until, settings, cancel)
		err := r.serveFlux(until, settings, ready)
		ended := until.Err() != nil
		cancel()
		if err != nil && !ended {
			return err
		}
	}
	return nil
}

// awaitOtherSettings calls changed when a commit with other settings of the
// Flux API is accepted.
func (r *Reconciler) awaitOtherSettings(ctx context.Context, now v1alpha1.FluxAPISpec, changed func()) {
	for {
		s, replaced := r.Accepted()
		if s.settings.GitOps.FluxAPI != now {
			changed()
			return
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return
		}
	}
}

// serveFlux runs the controllers until ctx ends.
func (r *Reconciler) serveFlux(ctx context.Context, settings v1alpha1.FluxAPISpec, ready func()) error {
	if settings.Disabled {
		ready()
		<-ctx.Done()
		return nil
	}
	select {
	case <-r.cluster.connected:
	case <-ctx.Done():
		return nil
	}
	_, hub, err := r.cluster.get()
	if err != nil {
		return err
	}
	controllers := flux.New(flux.Config{
		Kubeconfig: r.cfg.Kubeconfig, Store: r.artifacts, Hub: hub, Root: fluxRoot{r}, Hooks: r.hooks,
		StateDir: r.gitDir(), Version: r.cfg.Version,
		NoCrossNamespaceRefs: settings.NoCrossNamespaceRefs, DefaultServiceAccount: settings.DefaultServiceAccount,
		Log: r.log,
	})
	r.metrics.follow(controllers.Metrics())
	return controllers.Run(ctx, ready)
}
