package maps

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// SetNodeAddrs makes the given addresses the ones on which node ports and host ports are
// served, beside those the programs were loaded with. Those of a family that the node does not
// have are left alone.
func (t *Tables) SetNodeAddrs(addrs []netip.Addr) error {
	if err := setAddrs(t, "node_addrs", addrs, uint32(1)); err != nil {
		return fmt.Errorf("write the node's addresses: %w", err)
	}
	return nil
}

// SetAnnounced makes the given addresses the ones that neighbours on the uplink are told
// the hardware address for.
func (t *Tables) SetAnnounced(addrs []netip.Addr, mac net.HardwareAddr) error {
	value := bpf.IPv4Announcement{}
	copy(value.Mac[:], mac)
	if err := setAddrs(t, "announced", addrs, value); err != nil {
		return fmt.Errorf("write announced addresses: %w", err)
	}
	return nil
}

func setAddrs[V comparable](t *Tables, name string, addrs []netip.Addr, value V) error {
	return t.each(func(f *family) error {
		if f.family == IPv6 {
			return replace(f.byID[name], addrRows[Addr6](f, addrs, value))
		}
		return replace(f.byID[name], addrRows[Addr4](f, addrs, value))
	})
}

func addrRows[A Words, V any](f *family, addrs []netip.Addr, value V) map[A]V {
	rows := map[A]V{}
	for _, a := range addrs {
		if FamilyOf(a) == f.family {
			rows[ToWords[A](a)] = value
		}
	}
	return rows
}
