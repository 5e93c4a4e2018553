// Package registry reads images from container registries.
//
// A [Client] resolves references and reads manifests, blobs and referrers over
// the OCI distribution protocol. Authentication, tokens and redirects are
// go-containerregistry's; what is added here is what a site behind a thin line
// needs: mirrors that are asked first, a bound on the bytes per second,
// retries that go on where a connection broke, and a bound on every answer.
//
// It promises that a manifest hashes to the digest that was asked for, that a
// blob is never longer than its descriptor says and ends with an error unless
// it hashes to its digest, and that an error says which host said what. A mirror that
// fails or lacks something costs one attempt, never the image.
//
// The package must not know where the content goes, or what it means.
//
// Map: client.go (requests, mirrors), config.go, blob.go (streams that are
// resumed and checked), credentials.go, retry.go (what is worth trying again), rate.go.
package registry
