// Package mirror keeps the local copy of the repository.
//
// A [Mirror] is a bare repository on disk that one branch is fetched into over
// file, https or ssh. Everything else in the reconciler reads objects from the
// mirror, never from the network, so a site whose uplink is gone goes on.
//
// It promises that an object it hands out has the content its id says (the
// hash is computed on every read), that no hook, filter or helper program is
// ever run, that fetches and objects stay within [Limits], and that a power cut
// leaves a mirror that either opens or says that it is corrupt: a branch is
// recorded only after its objects are on disk. Reading goes on while a fetch
// runs.
//
// It must not know what commits are trusted or what files mean.
//
// Map: mirror.go (open, read, reset), fetch.go (one fetch), remote.go (the
// transports), credentials.go, pack.go (limits on what comes in), compact.go
// (joining packs), tree.go
// (strict tree objects), errors.go.
package mirror
