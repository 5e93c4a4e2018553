// Package peer lets the nodes of a site give each other images, so that a site
// pulls once.
//
// [Server] answers the reading half of the OCI distribution protocol over mutual
// TLS from what containerd has; [WriteHosts] tells containerd to ask the other
// nodes before a registry. There is no protocol of its own and nothing to
// elect: a node that lacks something says so and the next one is asked.
//
// It promises that only clients which the given TLS configuration lets in are
// answered, that nothing can be written, that a manifest is hashed before it is
// sent, and that a tag is answered only for images that the site's accepted
// commits need: what a tag means otherwise is for its registry to say. Clients
// check everything by its digest, so a node that lies is only slow.
//
// The package must not know how nodes find or enrol each other.
//
// Map: server.go (answers), hosts.go (containerd's configuration).
package peer
