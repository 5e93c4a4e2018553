// Package debian gets packages of Debian that something is made of: kernels with their
// modules, boot stubs, tools.
//
// Packages are fetched by the machine's own apt, with sources and state of their
// own, and unpacked, never installed. A lock file names each by version and sha256:
// what does not match is refused, so that what is made of them years later is the same,
// or the lock says which one is missing.
//
// It must not know what the packages are used for.
//
// lock.go: the lock file; store.go: apt and the cache; update.go: newer versions for the
// lock; kernel.go: kernels, with modinfo.go for the dependencies of their modules.
package debian
