// Package build makes container images without a container daemon: from a Go
// package, a C file, a finished static binary or a directory, into an OCI
// layout directory that package images imports.
//
// Builds are reproducible: the same sources and compilers give the same
// digests on any machine, because file times, owners and order are fixed and
// Go runs with -trimpath. They are incremental: an image whose digest did not
// change leaves the layout untouched, file times included. index.json is
// replaced atomically after the blobs it names are on disk, so a reader never
// meets a half-written layout.
//
// Images of a layout can be signed where they are, by a key, in the form of
// cosign.
//
// The package must not know containerd or registries.
//
// Map: build.go orchestrates; source.go turns a source into files; rootfs.go
// turns files into a layer; write.go keeps the layout; list.go reads it back;
// sign.go attaches signatures.
package build
