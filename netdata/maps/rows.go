package maps

import "github.com/bothy-os/bothy/netdata/bpf"

// The structs of bpf/src/tables.h that hold addresses, for either family. A test holds
// them against the types that are generated from it. Structs without
// addresses are the same for both families: the generated ones are used.

type nearRow[A Words] struct {
	Addr, Pad A
	Ep        bpf.IPv4Endpoint
}

type serviceKeyRow[A Words] struct {
	Addr  A
	Port  uint16
	Proto uint8
	Scope uint8
}

type slotRow[A Words] struct {
	Addr  A
	Port  uint16
	Flags uint8
	Pad   uint8
}

type affinityKeyRow[A Words] struct {
	Client  A
	Service uint32
}

type affinityRow[A Words] struct {
	Addr A
	Port uint16
	Pad  uint16
	Seen uint32
}

type tupleRow[A Words] struct {
	Saddr, Daddr A
	Sport, Dport uint16
	Proto        uint8
	Pad          [3]uint8
}

type peerKeyRow[A Words] struct {
	Bits uint32
	Addr A
}

type natRow[A Words] struct {
	Saddr, Daddr A
	Sport, Dport uint16
	Scope        uint16
	ToReal       uint16
}

type sourceRangeRow[A Words] struct {
	Prefix  uint32
	Service uint32
	Client  A
}

type rangeRow[A Words] struct {
	Prefix uint32
	Addr   A
}
