// Package store keeps the images that a node must not lose.
//
// The store is an OCI image layout in the node's state directory. Bundles are
// imported into it, and the images that the accepted commit and the one before
// it need are kept in it, so that containerd can have them again without a
// network. Where both are on one file system, which is how nodes are set up, a
// blob is in the store and in containerd as one file with two names: keeping an
// image costs a directory entry and no second copy, and getting it back is
// reading it once to check its hash, without a write.
//
// It promises that a file below blobs/ hashes to its name when it is put there,
// that index.json names only images whose blobs are all there, that an import
// which is killed at any moment goes on where it was when it is called again,
// and that the images of two accepted commits are never dropped.
//
// The package must not know containerd's API, who signed what, or Kubernetes.
//
// Map: store.go (the store and its index), importing.go (bundles), pins.go
// (which commits need what), content.go (files shared with containerd), watch.go.
package store
