// Package mirror keeps the local copy of a repository.
//
// A [Mirror] is a bare repository on disk that commits are fetched into over
// file, https, ssh or from a bundle, or that somebody pushes them into.
// Everything else reads objects from the mirror, never from the network, so a
// site whose uplink is gone goes on.
//
// It promises:
//   - An object that it hands out has the content its id says; the hash is
//     computed on every read. No hook, filter or helper program is ever run.
//   - Whatever a source sends or does, the mirror is left as it was or with one
//     more complete pack: a pack counts only when every object in it was
//     computed and everything that they refer to is there. So a gap can only
//     come from the disk, and is called [ErrCorrupt] or [ErrMissing].
//   - What a fetch may cost is bounded in bytes, objects, memory and time.
//   - A power cut leaves a mirror that opens. A branch is recorded after its
//     objects are on disk, and a pack counts by its index, which is named last.
//   - A fetch that finds nothing new writes nothing; a small commit writes a
//     small pack. Reading goes on during fetches and rewrites.
//
// From a server that can leave out files a mirror is cloned without those of
// older commits; it is partial then, and fetches them when they are read.
//
// It must not know what commits are trusted or what files mean.
//
// Map: mirror.go (open, read, reset), fetch.go (one fetch), partial.go (files
// that come later), walk.go (history). What comes in: intake.go (a stream
// becomes a file), resolve.go (deltas), links.go (what refers to what), stage.go
// (both together, and admission). On disk: packs.go and index.go (reading),
// write.go (writing), tidy.go (joining and dropping). Where from: remote.go,
// reference.go, credentials.go, uploadpack.go with http.go and ssh.go, local.go,
// bundle.go, watch.go (servers that stall). tree.go (strict tree objects),
// errors.go.
package mirror
