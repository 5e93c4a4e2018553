// Package boot is process 1 of a node.
//
// It prepares what the agent finds: private mounts, a host name, resolver
// settings and the [Environment] file; then it keeps `bothy agent` running and
// reaps orphans. [Run] does so in a node that `bothy up` makes out of
// namespaces. On a machine of bothy's own package appliance does, with the same
// [Keeper] and the same [Environment].
//
// Its promises: a dead agent is started again within a second or two and
// nothing else is touched; on SIGTERM the agent, the Kubernetes process and
// then everything that is left are asked to end, in this order, before the
// node goes away. It stays small: the standard library and x/sys only, because
// it is resident for ever and is the first thing that runs on the appliance.
//
// It must not know about Git, Kubernetes or the network.
//
// environment.go: what a node knows of itself; init.go and mounts.go: a node made
// of namespaces; keeper.go: processes that are kept running.
package boot
