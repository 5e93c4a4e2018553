// Package nodes keeps the routes to the pods of other nodes.
//
// Where another node is on the same link as this one's uplink, its pods are reached by a plain
// route, unless all packets are to be wrapped. All others are reached through one vxlan device: it has no list of peers, each
// route says itself where to. The VNI means nothing; who may send to this node's pods
// is for the network between the nodes, and for policy, to decide.
//
// Promises: routes follow the Node objects, stay as they are while the API is away and
// while no agent runs, and a route of a node that is gone is removed. Two nodes that claim the same
// range are a problem that is named, and the first keeps it.
//
// The package must not know Services or pods.
//
// Map: plan.go computes routes from nodes, purely; routes.go writes them to the kernel, with
// tunnel.go and encap.go; controller.go watches.
package nodes
