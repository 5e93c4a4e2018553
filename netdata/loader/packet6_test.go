package loader

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

const protoICMPv6 = 58

// ip6 is the packet without the Ethernet header, in IPv6. Its transport part is that of the same packet in
// IPv4, with another checksum.
func (p packet) ip6() []byte {
	like := p
	like.src = netip.AddrPortFrom(netip.IPv4Unspecified(), p.src.Port())
	like.dst = netip.AddrPortFrom(netip.IPv4Unspecified(), p.dst.Port())
	like.ipOptions = nil
	if p.proto == protoICMPv6 {
		like.proto = protoICMP
	}
	l4 := like.ip()[20:]
	if at := checksumAt(p.proto); at > 0 {
		binary.BigEndian.PutUint16(l4[at:], 0)
		binary.BigEndian.PutUint16(l4[at:], checksum(p.pseudo6(len(l4)), l4))
	}
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
	h[6], h[7] = p.proto, 64
	src, dst := p.src.Addr().As16(), p.dst.Addr().As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	return slices.Concat(h, l4)
}

func checksumAt(proto byte) int {
	switch proto {
	case protoTCP:
		return 16
	case protoUDP:
		return 6
	case protoICMPv6:
		return 2
	}
	return 0
}

func (p packet) pseudo6(length int) []byte {
	src, dst := p.src.Addr().As16(), p.dst.Addr().As16()
	b := slices.Concat(src[:], dst[:])
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, p.proto)
}

func (p packet) frame6() []byte {
	return append([]byte{0x02, 0xee, 0xee, 0xee, 0xee, 0xee, 0x02, 0x0b, 0, 0, 0, 1, 0x86, 0xdd}, p.ip6()...)
}

// parseFrame6 reads a frame and fails the test when a length or a checksum is wrong.
func parseFrame6(t *testing.T, frame []byte) packet {
	t.Helper()
	p := parseIP6(t, frame[14:], true)
	copy(p.dstMAC[:], frame)
	return p
}

func parseIP6(t *testing.T, b []byte, whole bool) packet {
	t.Helper()
	if len(b) < 48 || b[0]>>4 != 6 {
		t.Fatalf("not an IPv6 packet: %x", b)
	}
	l4 := b[40:]
	if length := int(binary.BigEndian.Uint16(b[4:])); whole && length != len(l4) {
		t.Errorf("payload length is %d, the packet has %d bytes", length, len(l4))
	}
	var p packet
	p.proto, p.ttl = b[6], b[7]
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	var sport, dport uint16
	switch p.proto {
	case protoTCP, protoUDP:
		sport, dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	case protoICMPv6:
		p.icmpType, p.icmpCode = l4[0], l4[1]
		p.echoID = binary.BigEndian.Uint16(l4[4:])
		p.payload = l4[8:]
	}
	if whole && p.proto == protoTCP {
		p.seq, p.ack, p.flags = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), l4[13]
	}
	p.src, p.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	if whole && checksumAt(p.proto) > 0 && checksum(p.pseudo6(len(l4)), l4) != 0 {
		t.Errorf("checksum of protocol %d is wrong", p.proto)
	}
	return p
}
