package gitserver

import (
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/vishvananda/netlink"
)

// takeAddress adds an address that nobody has to the loopback link: those of
// TEST-NET-1 (RFC 5737) belong to no network.
func takeAddress() (*netlink.Addr, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find the loopback link: %w", err)
	}
	for range 20 {
		ip := net.IPv4(192, 0, 2, byte(1+rand.IntN(254)))
		address := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}
		if err = netlink.AddrAdd(lo, address); err == nil {
			return address, nil
		}
	}
	return nil, fmt.Errorf("add an address to the loopback link: %w", err)
}

// returnAddress removes the address, if there is one.
func returnAddress(address *netlink.Addr) error {
	if address == nil {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback link: %w", err)
	}
	return netlink.AddrDel(lo, address)
}
