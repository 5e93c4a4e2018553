// Package debian gets the parts of Debian that virtual machines are made of:
// kernels with their modules, and a static busybox.
//
// Packages are fetched by the machine's own apt, with sources and state of their
// own, and unpacked, never installed. packages.yaml names each by version and
// sha256: what does not match is refused, so that a test run years later uses the
// same kernels or says which one is missing.
//
// It must not know what the packages are used for.
//
// lock.go: packages.yaml; store.go: apt and the cache; kernel.go: kernels, with
// modinfo.go for the dependencies of their modules.
package debian
