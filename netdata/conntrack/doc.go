// Package conntrack ends flows that the programs do not end themselves.
//
// The programs note every flow and when it last had a packet; deciding that it
// is over belongs here: [Collector.Run] sweeps the table, seldom while little
// expires and more often while much does. The same sweep forgets the flows of
// pods that are gone, before their addresses are used again, and
// [Collector.CutBackends] ends datagram flows to backends that left a Service. [Collector.Revoke]
// ends connections that policy allows no longer and on which nobody speaks, so that no packet would meet the policy.
//
// The package must not know Services or pods beyond their addresses.
package conntrack
