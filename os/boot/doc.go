// Package boot is process 1 of a node.
//
// It prepares what the agent finds: private mounts, a host name, resolver
// settings and the [Environment] file; then it keeps `bothy agent` running and
// reaps orphans. It is the same code on the appliance and in a node that
// `bothy up` makes out of namespaces; only who fills in the [Environment]
// differs.
//
// Its promises: a dead agent is started again within a second or two and
// nothing else is touched; on SIGTERM the agent, the Kubernetes process and
// then everything that is left are asked to end, in this order, before the
// node goes away. It stays small: the standard library and x/sys only, because
// it is resident for ever and is the first thing that runs on the appliance.
//
// It must not know about Git, Kubernetes or the network.
package boot
