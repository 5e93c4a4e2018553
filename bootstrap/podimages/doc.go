// Package podimages is an admission plugin that asks about the images of pods.
//
// It is compiled into the API server and has no webhook to be down. For every
// image that a pod names, in containers of all kinds and in volumes, it calls a
// function that may replace the name, for instance a tag by the digest that it
// stands for, or refuse it. The refusal becomes the answer to whoever made the
// pod. Of a pod that exists only images that change are asked about: a pod that
// runs can be labelled and deleted whatever has become of its image.
//
// Admission is the early and friendly answer. What counts is decided where
// containers are made.
//
// The package must not know policies or signatures.
package podimages
