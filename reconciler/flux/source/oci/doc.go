// Package oci reconciles OCIRepository objects of the Flux API: it finds the
// digest that the object means, verifies the signature that the object asks for,
// and puts the files of the layer into the source.Store.
//
// It promises: what is delivered has the digest in its revision, and was signed
// for if the object says so; a signature is checked before the content is
// fetched; a registry that is away, slow or lying leaves the last artifact in
// place; an archive can neither fill the memory nor name a place outside itself;
// after a restart the last artifact is there again without the network; a look
// that finds nothing new fetches no content and writes nothing, neither to disk
// nor to the API server.
//
// The package must not know who builds from the artifacts, and not how
// signatures are verified: package cosign does that.
//
// Map: reconciler.go (one object), attempt.go (one reconcile), report.go (what it
// says), reference.go (which digest), pull.go (the layer), verify.go (the policy),
// access.go (what Secrets hold), archive.go and files.go (content in memory),
// saved.go (content on disk).
package oci
