package maps

import (
	"encoding/binary"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// Addresses and ports are in network byte order in the maps, whatever the
// machine's own order is.

func addr4(a netip.Addr) bpf.IPv4Addr {
	b := a.As4()
	return bpf.IPv4Addr{Word: [1]uint32{binary.NativeEndian.Uint32(b[:])}}
}

func fromAddr4(a bpf.IPv4Addr) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], a.Word[0])
	return netip.AddrFrom4(b)
}

func netPort(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

func hostPort(p uint16) uint16 { return netPort(p) }

// Word is an IPv4 address as the programs' configuration holds it.
func Word(a netip.Addr) uint32 { return addr4(a).Word[0] }
