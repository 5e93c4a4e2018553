// Package agent is the hall of the house: it joins the wings to a node.
//
// [Run] is the life of `bothy agent`: it reads the boot configuration, lets the
// reconciler find an accepted commit, and from the Cluster in that commit
// builds the rest of the node: the dataplane in this process and the child
// process `bothy kube` ([RunKube]) with the control plane, the kubelet and
// containerd. When an accepted commit changes the Cluster, what depends on it
// is built anew; the child is restarted only if its own settings changed.
//
// Both processes may be killed at any moment. The agent finds a running child
// by its socket and adopts it; the child goes on without an agent; containers
// and packets depend on neither.
//
// The package holds no knowledge of its own about Git, Kubernetes or BPF: it
// passes values from one wing to another, supervises them, and answers on the
// status socket. Commands for people are in package cli.
package agent
