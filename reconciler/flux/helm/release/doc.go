// Package release has the controller of HelmRelease.
//
// A reconcile first brings together what is wanted (HelmChart, dependencies,
// chart, values). If that, the release in Helm's storage and the objects in the
// cluster are as they were when the release was last found in order, it ends
// there, without a request. Otherwise a job of its own compares storage and
// cluster with what is wanted and takes one step after the other (unlock,
// install, upgrade, test, roll back, uninstall, correct drift) until nothing is
// left to do. Which step is next is a pure function of what was found.
//
// It promises: Helm's storage is written as Helm writes it; a job that waits for
// pods or hooks does not keep others from working; a newer desired state ends
// such a wait; whatever a killed process left pending is recovered; drift is
// noticed by watching the metadata of the objects, and only of releases that ask
// for it; an unchanged release costs nothing.
//
// The package must not know where charts come from, beyond the source.Store.
//
// Map: setup.go, reconciler.go (from event to job), wanted.go, template.go,
// dependencies.go, values.go (what is wanted), attempt.go (the job), decide.go
// and state.go (the next step), install.go, upgrade.go, test.go, rollback.go,
// uninstall.go, unlock.go, crds.go, drift.go (the steps), report.go (conditions
// and events), storage.go and snapshot.go (Helm's storage), cluster.go,
// kube.go, capabilities.go and wait.go (the cluster as Helm sees it), render.go
// (post rendering), inventory.go, watch.go (metadata watches), delete.go.
package release
