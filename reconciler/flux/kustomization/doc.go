// Package kustomization reconciles Kustomization objects of the Flux API, with
// the meaning that Flux gives to every field of v1.
//
// For each object there is a job: the apply engine, what the last build read,
// and the status last written. A reconcile compares what the job has with what
// the cluster and the source want and does what is missing. It promises:
//
//   - A new revision that changes nothing of what an object is built from costs
//     neither a build nor an apply; only its status moves on, at low priority,
//     after the objects that did change.
//   - Nothing waits in a worker. Health, dependencies and artifacts call again
//     when they change, so a newer revision takes the place of a waiting one at
//     once, and an object that fails holds up no other.
//   - A status is written when something in it changed, twice for a new object:
//     before the first object is sent (the inventory) and at the end.
//   - The finalizer and the inventory are stored before anything that they
//     protect is sent, so that a crash at any point loses no object.
//
// The package must not know where artifacts come from, and not how objects are
// built or applied: packages build and apply do that.
//
// Map: setup.go (watches and indexes), reconciler.go (one object), attempt.go
// (one reconcile, step by step), job.go (what is remembered), dispatch.go (which
// objects a new artifact concerns), dependencies.go, inputs.go (substitution,
// decryption), target.go (clusters and identities), inventory.go, finalize.go,
// report.go (conditions and events).
package kustomization
