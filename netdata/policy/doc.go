// Package policy turns NetworkPolicy objects into rows of the dataplane's tables.
//
// [Compile] is a pure function from a [World], what the API says and which pods live on this
// node, to a [Plan]. It deals in numbers instead of labels: pods of this node that
// the same policies select share a subject; addresses that the same selectors and
// blocks match share a peer; what is allowed is a row of subject, peer, protocol and
// ports. Only policies that select a pod of this node count, so the tables are as
// large as the node's business, not the cluster's.
//
// [Writer] is the only one that writes the tables. It adds before it removes: rules, then
// addresses and pods, which is when a packet sees the change, then the revision that
// has established flows judged anew, and in the end, when no program can have read half
// of it, what nothing refers to any more. [Controller] feeds both from informers, and admits
// pods before their first instruction.
//
// Promises: a pod that a policy selects is isolated before it can send; an address nobody
// knows is allowed nothing but what is allowed to everybody; a rule that cannot be read
// allows nothing and is named in the status; what an earlier agent wrote stays in force until the API
// has been read completely once.
//
// The package must not know about eBPF, interfaces or CNI; what it needs of them is
// the [Table] interface.
//
// world.go: the input; object.go: from API objects; parse.go: a policy's rules;
// ports.go: ports as prefixes; compile.go, peers.go and number.go: the plan; writer.go: tables;
// controller.go with admit.go: a node's life.
package policy
