// Package images puts the container images a node needs into its containerd,
// and keeps them there.
//
// Images arrive as OCI layout directories: built beside the program
// (images/build), or in the node's store, which bundles are imported into. The
// importer copies every image that containerd does not hold yet, unpacks it, and
// pins it, so that the kubelet's image garbage collection can never remove what
// could not be pulled again. It is idempotent: a start with everything in place
// reads one small file per layout and asks containerd a few questions per image.
// The keeper does the same whenever containerd says that an image went, or the
// store that other images are needed; in between it does nothing.
//
// It promises that one bad image does not keep the others out, that an image has
// a name only once it can run, that an error names the file and the digest that
// are wrong, that the images of the accepted commit and the one before are never
// collected, and that the sandbox image comes first, because no pod starts
// without it.
//
// What may run is decided elsewhere: policy reads the site's image policy,
// verify judges an image by it, gate is the judgement on a node, enforce puts it
// into containerd, signatures finds what is attached to images.
//
// It must not know who asked for an image, where layouts come from, or
// anything about Kubernetes beyond the labels by which containerd's CRI plugin
// recognises its images.
//
// Map: importer.go is the importer and the status; keeper.go keeps and pins;
// import.go moves one image; guard.go makes containerd look at layers; mirror.go
// gives images to other nodes. Below: layout reads OCI layouts, build writes
// them; bundle is the file that carries a site, store the node's own copy,
// registry and peer read from and serve over the network, needs finds the
// images of objects, layer refuses harmful archives; pause/ is the source of the
// sandbox image.
package images
