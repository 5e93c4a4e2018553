// Package flux serves the Flux API: the objects of the groups source, kustomize,
// helm and notification.toolkit.fluxcd.io, with Flux's own definitions and
// meaning, so that existing repositories and the flux command work against a
// bothy.
//
// [Controllers] is one component of the agent. It waits for the API server, puts
// the definitions there ([Controllers.EnsureDefinitions]), and runs one
// controller-runtime manager with all controllers of the packages below it.
//
// It promises: an API server that restarts or is away does not end it; an
// object whose interval is over without anything new costs no request; a
// controller that waits holds no worker; objects that carry
// [env.ShardLabel] belong to somebody else and are not seen.
//
// The package must not know how the boot repository is fetched, judged and
// applied: it learns of both through [Root], and artifacts come to it through
// the source.Store.
//
// Map: controllers.go (the component), definitions.go, manager.go (scheme and
// cache), metrics.go. Below: crds (the definitions), env (what controllers are
// set up with), boot (flux-system/flux-system), kustomization, source (the
// store; controllers of sources in packages below it), helm, notify, events.
package flux
