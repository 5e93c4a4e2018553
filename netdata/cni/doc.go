// Package cni is the agent's side of the Container Network Interface (spec
// 1.1): it connects pods to the node and forgets them again.
//
// A pod gets one end of a veth pair with an address of each family of the node (/32 and /128) and
// routes by way of link-local gateways whose hardware address is fixed, so that neither ARP
// nor neighbour discovery is ever needed.
// ADD answers when the pod is known to policy, its rows are in the maps and its programs attached:
// from its first instruction the pod is under the dataplane's rules.
//
// What the package remembers of a pod is a small file in the run directory, a
// tmpfs: it must outlive the agent but not the node's namespaces, so a pod
// costs no write to disk. A record is written before the interface is made, and
// removed after it is gone; [Server.Reconcile] cleans up between the two at
// start. It also works off what the plugin noted while the agent was away.
//
// The package must not know Services, the Kubernetes API or eBPF: it is handed a
// [Dataplane].
//
// server.go speaks the protocol, request.go decodes and checks, hostport.go opens ports of the node, add.go, del.go, check.go and
// gc.go hold the verbs, veth.go and mtu.go the links, record.go the files, reconcile.go the start,
// conflist.go the runtime's configuration.
package cni
