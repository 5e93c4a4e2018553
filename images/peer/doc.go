// Package peer lets the nodes of a site give each other images, so that a site
// pulls once.
//
// [Server] answers the reading half of the OCI distribution protocol over mutual
// TLS from what containerd has, and what it knows to be attached to a digest.
// [WriteHosts] tells containerd to ask the other nodes before a registry: by them it
// learns what a tag stands for. [Siblings] fetches the content: containerd goes to the
// first who has a blob and fails if that one is wrong, while an image must not
// depend on the worst disk of a site. There is nothing to elect: a node that
// lacks something says so and the next one is asked.
//
// It promises that only clients which the given TLS configuration lets in, and who
// are enrolled at that moment, are answered; that nothing can be written; that a
// manifest is hashed before it is sent; and that a tag is answered only for
// images that the site's accepted commits need: what a tag means otherwise is for
// its registry to say. What comes is checked by its digest, and a node that sent
// something wrong is left alone for a while.
//
// The package must not know how nodes find or enrol each other.
//
// Map: server.go (answers), siblings.go (asks), nodes.go (whom), hosts.go
// (containerd's configuration).
package peer
