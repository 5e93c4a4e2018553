// Package ipam hands out the addresses of a node's pod ranges: [Pool] those of one range, [Ranges]
// one of each family.
//
// Addresses are given out in turn and rest after release, so that an address
// is used again as late as possible: a peer that still talks to the pod that
// had it must not reach another. The package keeps no state on disk; the CNI
// server tells it at start which addresses are in use.
package ipam
