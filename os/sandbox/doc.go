// Package sandbox makes a node out of namespaces on any Linux machine, for
// `bothy up`.
//
// A node has its own network, mount, process, host name and IPC namespaces
// and a cgroup of its own; process 1 in it is bothy-init, as on the
// appliance. Because every process of the node is in its process namespace,
// stopping process 1 stops them all, and because its mounts, devices and
// pinned BPF programs live in its namespaces, they vanish with it.
//
// The package promises that [Start] either leaves a running node or what was
// there before, and that [Stop] leaves nothing outside the state directory:
// no process, mount, link, firewall rule, cgroup or file. No port and no
// address range that the machine uses is taken. It must not know what the
// agent does.
package sandbox
