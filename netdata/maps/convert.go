package maps

import (
	"encoding/binary"
	"net/netip"
)

// Addresses and ports are in network byte order in the maps, whatever the
// machine's own order is.

// Struct addr of the programs in its two sizes.
type (
	// Addr4 is an IPv4 address.
	Addr4 = [1]uint32
	// Addr6 is an IPv6 address.
	Addr6 = [4]uint32
)

// Words is an address of one family as the programs hold it. A function that works
// on rows has it as a type parameter, and is so written once for both families.
type Words interface{ Addr4 | Addr6 }

// ToWords converts an address of the family that A is for.
func ToWords[A Words](a netip.Addr) A {
	var out A
	b := a.AsSlice()
	for i := range len(out) {
		out[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

// FromWords is the inverse of ToWords.
func FromWords[A Words](a A) netip.Addr {
	b := make([]byte, 0, 16)
	for i := range len(a) {
		b = binary.NativeEndian.AppendUint32(b, a[i])
	}
	out, _ := netip.AddrFromSlice(b) // 4 and 16 bytes are both fine
	return out
}

func netPort(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

func hostPort(p uint16) uint16 { return netPort(p) }
