// Package remote gets charts from chart repositories and registries.
//
// A [Repository] is an HTTP server with an index; a [Registry] is an OCI
// registry. It promises: answers are bounded in size; a chart whose content does
// not have the digest that the index or the manifest names is refused;
// credentials go to the host they were given for and to no other, unless that
// was asked for in so many words; errors never contain credentials.
//
// The package must not know Kubernetes: credentials and certificates are handed
// in.
//
// Map: repository.go, index.go (finding a chart in an index without parsing all
// of it), registry.go, version.go (picking a version).
package remote
