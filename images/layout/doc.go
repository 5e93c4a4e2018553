// Package layout reads OCI image layouts: a directory with index.json and
// blobs/<algorithm>/<hex>, as the OCI image specification describes it.
//
// [Open] lists the named images of a layout without touching the blobs;
// [Layout.Verify] and [Layout.OpenBlob] check them. Every error about content
// is a [BlobError], which names file and digest.
//
// The package must not know containerd, registries or how layouts are made.
package layout
