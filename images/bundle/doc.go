// Package bundle makes and reads bundles: everything a site needs, in one file.
//
// A bundle is an OCI image layout, a directory or one tar file of it. Its
// index.json names images by their full references, the signatures and
// attestations of each by the tags and referrers that tools look for, artifacts that
// are no images, such as an operating system, by their references and types, and one
// with the commits of the site's repository as a Git bundle. Any tool
// that reads OCI layouts reads it.
//
// [Create] collects images from registries and layouts. It promises that the
// same images and commit give the same bytes, that a blob is stored once, that
// what was interrupted goes on where it was, and that nothing is written that
// does not hash to its digest. With a base it leaves out the layers that the
// base has. [Read] streams a bundle, so that it can come from standard input;
// [Check] finds out whether one is whole.
//
// The package must not know nodes, containerd or where a site keeps images,
// nor whom to trust: that is decided where an image is used.
//
// Map: index.go (what index.json says), source.go (where images come from),
// create.go (one bundle), collect.go (one image and what is signed about it),
// stage.go (blobs on disk), tar.go (the file), read.go (streaming), check.go,
// listing.go (what people see).
package bundle
