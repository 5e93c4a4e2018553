// Package build turns a directory of a commit into Kubernetes objects.
//
// A directory with a kustomization file is built by kustomize; one without is
// read as plain YAML, sub-directories included. For a Flux Kustomization its
// fields are applied with Flux's meaning: they are written into the kustomization
// in memory, and a directory that needs nothing of kustomize is read without it.
// Encrypted files are decrypted before kustomize changes what is in them, so that
// their integrity is checked; variables are replaced at the end.
//
// [Build] reads nothing but the file system it is given: kustomize sees the
// commit through an adapter that has no way out, and everything that would make
// kustomize start a program or open a connection (remote bases and files, Helm
// charts, external plugins) is refused before kustomize follows it. Documents of
// bothy's own kinds are left out: they are the machine half's.
//
// It promises: errors name the file and the object, and never hold what was
// decrypted or the value of a variable; an error means no objects at all, never
// some of them; [Reads] says of another commit whether building it would give the
// same, in microseconds and without reading files, however large the repository
// is.
//
// The package must not know a cluster.
//
// Map: build.go (what is in a directory), plain.go (YAML documents), fields.go
// (the fields of a Flux Kustomization), kustomize.go and schema.go (running
// kustomize), guard.go (what a kustomization may not ask for), filesystem.go (the
// adapter), decrypt.go and redact.go (secrets), substitute.go (variables),
// fluxcomponents.go (what bothy serves itself), reads.go (what a build depends
// on). Below: ignore (which files do not count), sops (opening encrypted files).
package build
