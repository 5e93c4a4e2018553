package announce

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMPv6     = 58
	ndAdvertisement = 136
	ndOverride      = 0x20 // of the flags: the receiver is to replace what it has
	ndTargetMAC     = 2    // option
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
	// allNodesMAC is what allNodes is on Ethernet.
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// gratuitous is a frame that tells everybody on the link that the address is at mac: for IPv4 an
// ARP request of the address for itself, which more receivers heed than an answer; for
// IPv6 an unsolicited neighbour advertisement.
func gratuitous(addr netip.Addr, mac net.HardwareAddr) []byte {
	if addr.Is4() {
		ip := addr.AsSlice()
		return slices.Concat(broadcast, mac, be16(etherARP),
			be16(1), be16(0x0800), []byte{6, 4}, be16(1), // Ethernet, IPv4, lengths, request
			mac, ip, make([]byte, 6), ip)
	}
	target := addr.AsSlice()
	icmp := slices.Concat([]byte{ndAdvertisement, 0, 0, 0, ndOverride, 0, 0, 0}, target, []byte{ndTargetMAC, 1}, mac)
	pseudo := slices.Concat(target, allNodes.AsSlice(), []byte{0, 0}, be16(uint16(len(icmp))), []byte{0, 0, 0, protoICMPv6})
	binary.BigEndian.PutUint16(icmp[2:], checksum(slices.Concat(pseudo, icmp)))
	header := slices.Concat([]byte{0x60, 0, 0, 0}, be16(uint16(len(icmp))), []byte{protoICMPv6, 255}, target, allNodes.AsSlice())
	return slices.Concat(allNodesMAC, mac, be16(etherIPv6), header, icmp)
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// checksum is that of the Internet protocols, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
