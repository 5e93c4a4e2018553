// Package git reconciles GitRepository objects of the Flux API: it fetches each
// into a mirror of its own, verifies the signatures that the object asks for,
// and puts the files into the source.Store.
//
// It promises: a fetch that finds nothing new writes nothing, neither to disk
// nor to the API server; a server that is away, slow or lying leaves the last
// artifact in place; after a restart the last artifact is there again from the
// mirror, verified anew, before the network is asked; what an object fetched is
// deleted with it.
//
// The boot repository's object is not handled here. The package must not know
// who builds from the artifacts, and not the Git protocol: package mirror does
// that.
//
// Map: reconciler.go (one object), attempt.go (one reconcile), credentials.go
// and verify.go (what Secrets hold), files.go (sparse checkout and includes).
package git
