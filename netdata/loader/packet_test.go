package loader

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// Packets are built and read by hand: the tests must not share a mistake with
// a library that the programs' author used as well.

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

type packet struct {
	src, dst      netip.AddrPort
	proto         byte
	flags         byte
	seq, ack      uint32
	ipOptions     []byte // multiple of four bytes
	fragment      uint16 // flags and offset, as in the header
	payload       []byte
	icmpType      byte
	icmpCode      byte
	echoID        uint16
	dstMAC        [6]byte
	ttl           byte
	badIPLength   bool
	noUDPChecksum bool
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func tcp(src, dst string, flags byte) packet {
	return packet{src: ap(src), dst: ap(dst), proto: protoTCP, flags: flags, seq: 1000, ack: 2000}
}

func udp(src, dst string) packet {
	return packet{src: ap(src), dst: ap(dst), proto: protoUDP, payload: []byte("hello, world")}
}

func (p packet) reply() packet {
	r := p
	r.src, r.dst = p.dst, p.src
	return r
}

// ip is the packet without the Ethernet header.
func (p packet) ip() []byte {
	var l4 []byte
	switch p.proto {
	case protoTCP:
		options := []byte{2, 4, 5, 180} // maximum segment size, as in any SYN
		if p.flags&flagSYN == 0 {
			options = nil
		}
		l4 = make([]byte, 20+len(options)+len(p.payload))
		binary.BigEndian.PutUint16(l4, p.src.Port())
		binary.BigEndian.PutUint16(l4[2:], p.dst.Port())
		binary.BigEndian.PutUint32(l4[4:], p.seq)
		binary.BigEndian.PutUint32(l4[8:], p.ack)
		l4[12] = byte((20 + len(options)) / 4 << 4)
		l4[13] = p.flags
		binary.BigEndian.PutUint16(l4[14:], 4096)
		copy(l4[20:], options)
		copy(l4[20+len(options):], p.payload)
	case protoUDP:
		l4 = make([]byte, 8+len(p.payload))
		binary.BigEndian.PutUint16(l4, p.src.Port())
		binary.BigEndian.PutUint16(l4[2:], p.dst.Port())
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		copy(l4[8:], p.payload)
	case protoICMP:
		l4 = make([]byte, 8+len(p.payload))
		l4[0], l4[1] = p.icmpType, p.icmpCode
		binary.BigEndian.PutUint16(l4[4:], p.echoID)
		copy(l4[8:], p.payload)
	default:
		l4 = p.payload
	}
	src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
	switch p.proto {
	case protoTCP:
		binary.BigEndian.PutUint16(l4[16:], checksum(pseudo(src, dst, p.proto, len(l4)), l4))
	case protoUDP:
		if !p.noUDPChecksum {
			binary.BigEndian.PutUint16(l4[6:], checksum(pseudo(src, dst, p.proto, len(l4)), l4))
		}
	case protoICMP:
		binary.BigEndian.PutUint16(l4[2:], checksum(nil, l4))
	}
	h := make([]byte, 20+len(p.ipOptions))
	h[0] = 0x40 | byte(len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(l4)))
	if p.badIPLength {
		binary.BigEndian.PutUint16(h[2:], 10)
	}
	binary.BigEndian.PutUint16(h[6:], p.fragment)
	h[8], h[9] = 64, p.proto
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	copy(h[20:], p.ipOptions)
	binary.BigEndian.PutUint16(h[10:], checksum(nil, h))
	return slices.Concat(h, l4)
}

// frame is the packet on the wire.
func (p packet) frame() []byte {
	if p.src.Addr().Is6() {
		return p.frame6()
	}
	eth := []byte{0x02, 0xee, 0xee, 0xee, 0xee, 0xee, 0x02, 0x0b, 0, 0, 0, 1, 0x08, 0x00}
	return append(eth, p.ip()...)
}

// parseFrame reads a frame and fails the test when a checksum is wrong.
func parseFrame(t *testing.T, frame []byte) packet {
	t.Helper()
	if len(frame) < 34 {
		t.Fatalf("frame of %d bytes", len(frame))
	}
	if frame[12] == 0x86 {
		return parseFrame6(t, frame)
	}
	p := parseIP(t, frame[14:], true)
	copy(p.dstMAC[:], frame)
	return p
}

func parseIP(t *testing.T, b []byte, whole bool) packet {
	t.Helper()
	hlen := int(b[0]&15) * 4
	if checksum(nil, b[:hlen]) != 0 {
		t.Errorf("IP header checksum is wrong")
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if whole && total != len(b) {
		t.Errorf("IP length is %d, the packet has %d bytes", total, len(b))
	}
	var p packet
	p.proto, p.ttl = b[9], b[8]
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	l4 := b[hlen:]
	var sport, dport uint16
	switch p.proto {
	case protoTCP, protoUDP:
		sport, dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		zero := p.proto == protoUDP && binary.BigEndian.Uint16(l4[6:]) == 0
		if whole && !zero && checksum(pseudo(src.As4(), dst.As4(), p.proto, len(l4)), l4) != 0 {
			t.Errorf("checksum of protocol %d is wrong", p.proto)
		}
		if whole && p.proto == protoTCP {
			p.seq, p.ack, p.flags = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), l4[13]
		}
	case protoICMP:
		p.icmpType, p.icmpCode = l4[0], l4[1]
		p.echoID = binary.BigEndian.Uint16(l4[4:])
		p.payload = l4[8:]
		if whole && checksum(nil, l4) != 0 {
			t.Errorf("ICMP checksum is wrong")
		}
	}
	p.src, p.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p
}

func pseudo(src, dst [4]byte, proto byte, length int) []byte {
	b := append(append([]byte{}, src[:]...), dst[:]...)
	return append(b, 0, proto, byte(length>>8), byte(length))
}

func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			word := uint32(b[i]) << 8
			if i+1 < len(b) {
				word |= uint32(b[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
