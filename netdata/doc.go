// Package netdata is the network of a node: pods' connections, Services and
// the cluster's DNS, on eBPF programs that the agent loads and then is not
// needed for.
//
// It is run as six components. "dataplane" loads and attaches the programs; it
// needs no API and is the first to be ready. "cni" takes over living pods and connects
// new ones; it needs the node's pod range, from the configuration, from the last
// run or from the Node object. "policy" keeps the tables true to NetworkPolicies, and admits
// pods; "services", to Services and EndpointSlices. "nodes" keeps routes to the pods of other
// nodes. "dns" answers on the cluster DNS addresses.
//
// Promises: the death, restart or upgrade of the agent changes nothing for
// established connections and for new ones; while the API is away everything keeps
// working as it was; an address without anybody behind it is refused at once; a pod's
// policy is in force before its first instruction.
//
// The package must not know who starts it, where the API server runs, or what
// is in a pod. It works in the network namespace it is started in, and changes
// nothing outside.
//
// Map: bpf (the programs), maps (their tables), loader (attaching), cni with cni/plugin and
// ipam, services, pool with announce and elect, policy, nodes, conntrack, dns. This package itself
// wires them: config.go, netdata.go (the
// components), node.go (interfaces, routes, sysctls), podrange.go, mtu.go, api.go, status.go,
// system.go (what the wing needs in the API), cleanup.go.
package netdata
