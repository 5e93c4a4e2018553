// Package build turns a directory of a commit into Kubernetes objects.
//
// A directory with a kustomization file is built by kustomize; one without is
// read as plain YAML, sub-directories included. [Build] reads nothing but the
// file system it is given: kustomize sees the commit through an adapter that
// has no way out, and everything that would make kustomize start a program or
// open a connection (remote bases and files, Helm charts, external plugins) is
// refused before kustomize follows it. Documents of bothy's own kinds are left
// out: they are the machine half's.
//
// Errors name the file and the object. An error means no result at all, never
// a partial one.
//
// The package must not know a cluster.
//
// Map: build.go (what is in a directory), plain.go (YAML documents),
// kustomize.go (running it), guard.go (what a kustomization may not ask for),
// filesystem.go (the adapter).
package build
