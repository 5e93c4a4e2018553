package policy

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bothy-os/bothy/netdata/maps"
)

// World is all that decides about policy on a node.
type World struct {
	// Node is the name of this one.
	Node string
	// Pods are those of all nodes by namespace/name, without pods on the host's network.
	Pods map[string]*Pod
	// Namespaces are their labels.
	Namespaces map[string]labels.Set
	Policies   map[string]*Policy
	// Local are the addresses of this node's pods. One whose pod is not known has nil, and
	// may neither send nor receive.
	Local map[netip.Addr]*Pod
}

// Pod is what policy sees of a pod.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Labels          labels.Set
	// Addrs are those the API knows. For a pod of this node, [World.Local] counts instead: it is
	// right earlier.
	Addrs []netip.Addr
	// Node is where it is scheduled, "" if nowhere yet.
	Node  string
	Ports map[PortName]uint16
	// Created decides between two pods that claim one address.
	Created time.Time

	group string // pods of the same group are equal to every policy
}

// PortName is a named container port.
type PortName struct {
	Name  string
	Proto maps.Protocol
}
