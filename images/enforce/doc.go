// Package enforce puts the image policy where containers are made: into the
// containerd of this process.
//
// [Guard.Plugins] changes containerd's plugins before it starts. Everything that
// makes a container goes through the services it wraps: the CRI for the kubelet,
// static pods and sandboxes, and whoever talks to containerd's socket, in any
// namespace. There is no webhook to be down, no program to be missing, and no
// setting under which the guard is skipped.
//
// What is guarded:
//
//   - pull: before anything but the digest is known; signatures are fetched from
//     beside the image if they are not here yet;
//   - names: an image gets none that it may not run under;
//   - containers: the image that the container names must be allowed, and the
//     file system must be a snapshot of just that image, found by hashing index,
//     manifest and configuration again;
//   - tasks: that is asked again when the container starts, and what is mounted
//     as its root must be that snapshot, unchanged, run by bothy's own runtime;
//   - layers: a client gives a layer the name of its hash only if containerd
//     itself unpacked it, and nothing beside it;
//   - sandboxes: none that is not a container;
//   - volumes: a snapshot of an image is given out only for an allowed image.
//
// The promise ends where root begins: who can write to containerd's directory,
// or exec into a container, needs no image.
//
// The package must not know the policy; it asks a gate. It must not know
// Kubernetes beyond the annotation with the name that a pod's author wrote.
//
// Map: guard.go (the plugins), image.go (what an image is made of), pull.go,
// names.go, containers.go, tasks.go, snapshots.go, layers.go, sandboxes.go (the
// guarded services), admit.go (answers to admission).
package enforce
