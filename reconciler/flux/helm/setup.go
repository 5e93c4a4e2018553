package helm

import (
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm/release"
	"github.com/bothy-os/bothy/reconciler/flux/helm/sources"
)

// Setup registers the controllers of HelmRepository, HelmChart and HelmRelease
// with the manager.
func Setup(mgr ctrl.Manager, e env.Env) error {
	if err := sources.Setup(mgr, e); err != nil {
		return err
	}
	return release.Setup(mgr, e)
}
