package flux

import (
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/bothy-os/bothy/reconciler/flux/boot"
	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm"
	"github.com/bothy-os/bothy/reconciler/flux/kustomization"
	"github.com/bothy-os/bothy/reconciler/flux/notify"
	"github.com/bothy-os/bothy/reconciler/flux/source/bucket"
	"github.com/bothy-os/bothy/reconciler/flux/source/git"
	"github.com/bothy-os/bothy/reconciler/flux/source/oci"
)

// setups lists the controllers. Sources come first, so that what builds from
// them finds their artifacts.
func setups(cfg Config, booted func()) []Setup {
	hooks := cfg.Hooks
	if hooks == nil {
		hooks = notify.NewHooks()
	}
	out := []Setup{git.Setup, oci.Setup, bucket.Setup, hooks.Setup, kustomization.Setup, helm.Setup}
	if cfg.Root != nil {
		out = append(out, func(mgr ctrl.Manager, e env.Env) error { return boot.Setup(mgr, e, cfg.Root, booted) })
	} else {
		booted()
	}
	return out
}
