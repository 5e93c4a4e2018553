// Package images builds the container images that the upstream end-to-end
// suite runs, into an OCI layout that a node imports: under the names the suite
// asks for, from the suite's own sources and from Debian packages, without a
// registry or a container daemon.
//
// The suite's programs (agnhost, nonewprivs, pause ...) are compiled from the
// module that the suite itself comes from, and busybox from its release, as
// upstream configures it. What else upstream takes from Alpine, Docker's library
// or its own Debian base is taken from the packages of the Debian release of the
// machine that builds. Every image says in [Image.Change] how it differs from
// the upstream one, and docs/conformance.md repeats that: the suite is not
// patched, so its images are the only thing a reader has to take on trust.
//
// Map: catalogue.go lists the images; debian.go turns packages into a tree of
// files; tree.go turns a tree into a layer; pause.go compiles the one program in
// C; registry.go lays out what agnhost's own registry serves; build.go writes
// the layout.
package images
