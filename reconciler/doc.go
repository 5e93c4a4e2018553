// Package reconciler makes a signed Git repository the state of the cluster.
//
// Its components run in the agent. "git" asks the sources for the branch,
// decides whether its newest commit is acceptable, has the hall validate the
// machine half of it, records it durably and publishes it as a [Snapshot].
// "workloads" builds the objects of the site's directory, applies them as soon as
// the API server answers, follows their health, prunes what left Git and undoes
// drift, which "watches" tells it about. "flux" serves the Flux API, to which
// the snapshot is the artifact of GitRepository flux-system/flux-system.
// "endpoint" takes pushes and webhooks.
//
// It promises: only an accepted commit is ever used; what was accepted stays
// accepted over restarts, power cuts, a lost repository and a lost mirror; a
// refused commit changes nothing and [Status] says which rule it broke and what
// to do; fetching never blocks applying; a newer commit pre-empts waiting for
// an older one.
//
// The package must not know how a control plane, a node or a network is run. It
// gets a kubeconfig path and a validation function from the hall and gives back
// values.
//
// Map: [Reconciler] (reconciler.go) joins the parts. Fetching: git.go, origin.go
// (sources, back-off), media.go (bundles), judge.go (accept, push), listen.go.
// Applying: workloads.go, site.go (build), own.go (the site's own Kustomization),
// decryption.go, report.go, cluster.go (connection and watches). The Flux API:
// fluxapi.go, fluxroot.go. For operators: status.go, way.go (history and
// traces), metrics.go, preview.go (what a revision would change). snapshot.go is
// what is handed over.
//
// Below: acceptance (rules), mirror (Git objects), tree (files of a commit),
// build (kustomize, SOPS), apply (server-side apply, drift, health), flux (the
// Flux API), endpoint (pushes, webhooks), history, repository (making, verifying
// and changing a repository).
package reconciler
