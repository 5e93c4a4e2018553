// Package signatures keeps what is attached to images where they run.
//
// A [Store] is a directory with one file for each signed digest, holding its
// signatures and attestations: they travel with the image and are there when it
// starts, with or without a network. [Layout] finds them in an OCI layout, in
// any of the ways in which tools put them there; [Layouts] does so again and
// again.
//
// Nothing here is believed: a file that somebody changed leads to a refusal.
//
// The package must not know policies or containerd.
package signatures
