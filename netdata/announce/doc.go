// Package announce makes the addresses of load balancers known on the link of a node's uplink.
//
// For each address that a Service has in its status and that is in a pool, one node is elected among
// those that are Ready and, if the Service wants local endpoints only, have one
// (see netdata/elect: no lease, no write). That node's programs answer ARP requests and neighbour
// solicitations for it (netdata/bpf/src/announce.h): in the kernel, because answers must not stop
// while the agent restarts, and because it needs neither a socket that sees every
// broadcast nor the address on an interface. What the programs cannot do is begin: when an
// address comes to a node, [Announcer] sends the gratuitous announcements that have
// switches and neighbours learn the new place at once.
//
// Promises: while the API is away everything stays as it was. Fail-over takes as long as the API
// needs to call a node not Ready, and then milliseconds.
//
// The package must not know how addresses are chosen or balanced.
//
// announcer.go decides and follows, frame.go builds the frames, send.go sends them.
package announce
