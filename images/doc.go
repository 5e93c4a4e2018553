// Package images puts the container images a node needs into its containerd.
//
// Images arrive as OCI layout directories: built beside the program
// (images/build), carried on a USB stick, or fetched. The importer copies every
// image of every layout that containerd does not hold yet, unpacks it, and
// pins it, so that the kubelet's image garbage collection can never remove
// what could not be pulled again. It is idempotent: a start with everything in
// place reads one small file per layout and asks containerd two questions per
// image.
//
// It promises that one bad image does not keep the others out, that an error
// names the file and the digest that are wrong, and that the sandbox image
// comes first, because no pod starts without it.
//
// What may run is decided elsewhere: policy reads the site's image policy,
// verify judges an image by it, gate is the judgement on a node, enforce puts it
// into containerd, signatures finds what is attached to images.
//
// It must not know who asked for an image, where layouts come from, or
// anything about Kubernetes beyond the labels by which containerd's CRI plugin
// recognises its images.
//
// Map: importer.go is the component and its status; import.go moves one image;
// package layout reads OCI layouts; package build writes them; pause/ is the
// source of the sandbox image.
package images
