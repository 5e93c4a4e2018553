// Package reconciler makes a signed Git repository the state of the cluster.
//
// Two components run in the agent. "git" fetches the branch into a mirror,
// decides whether its newest commit is acceptable, has the hall validate the
// machine half of it, records it durably and publishes it as a [Snapshot].
// "workloads" builds the snapshot's Kubernetes objects, applies them as soon as
// the API server answers, waits for their health, prunes what left Git and
// undoes drift.
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
// Map: [Reconciler] (reconciler.go) joins git.go and workloads.go; snapshot.go
// is what they hand over; status.go is what operators see. Below:
// acceptance (rules), mirror (Git objects), tree (files of a commit), build
// (kustomize), apply (server-side apply), repository (making a repository).
package reconciler
