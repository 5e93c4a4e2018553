package policy

import "math/bits"

// portPrefix is a range of ports as the tables hold it.
type portPrefix struct {
	port uint16
	bits uint8
}

// portRange splits an inclusive range into prefixes, at most 30. From 0, which is no port, it
// is all ports.
func portRange(first, last uint16) []portPrefix {
	if first == 0 {
		return []portPrefix{{}}
	}
	var out []portPrefix
	for at := uint32(first); at <= uint32(last); {
		// The largest aligned block that begins here and does not reach beyond the end.
		size := min(bits.TrailingZeros32(at), bits.Len32(uint32(last)-at+1)-1)
		out = append(out, portPrefix{uint16(at), uint8(16 - size)})
		at += 1 << size
	}
	return out
}
