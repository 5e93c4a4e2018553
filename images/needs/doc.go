// Package needs finds the container images that Kubernetes objects use.
//
// It knows the pod specifications in all built-in kinds, lists and templates
// included, with their containers, init containers, ephemeral containers and
// image volumes. Objects whose controllers make pods of their own, custom
// resources and Helm releases, say in the annotation [Annotation] which images
// those need; common image fields of custom resources are recognised without.
//
// It promises full references, each once, in order: what containerd calls the
// image. What cannot be a reference, and releases that do not say what they
// need, are reported and not guessed.
//
// The package must not know where objects come from or images go.
package needs
