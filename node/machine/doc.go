// Package machine keeps the labels and taints of this node's Node object as
// the accepted Machine says, after the node has registered as well as before.
//
// The kubelet sets them once, at registration, and may not set those that name
// a role. This component does both at every start of the process, which is
// also when a changed Machine takes effect. It remembers in an annotation what
// it has set, removes that when it leaves Git, and never touches labels and
// taints of others: autoscalers, operators, the node lifecycle controller.
//
// It must not know where the Machine comes from.
//
// Map: merge.go computes the Node that should be; component.go writes it.
package machine
