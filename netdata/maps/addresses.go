package maps

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// SetNodeAddrs makes the given addresses the ones on which node ports and host ports are
// served, beside the one the programs were loaded with.
func (t *Tables) SetNodeAddrs(addrs []netip.Addr) error {
	var rows []addrRow
	for _, a := range addrs {
		rows = append(rows, addrRow{a, uint32(1)})
	}
	if err := replaceAddrs[uint32](t.byID["node_addrs"], rows); err != nil {
		return fmt.Errorf("write the node's addresses: %w", err)
	}
	return nil
}

// SetAnnounced makes the given addresses the ones that neighbours on the uplink are told
// the hardware address for.
func (t *Tables) SetAnnounced(addrs []netip.Addr, mac net.HardwareAddr) error {
	value := bpf.IPv4Announcement{}
	copy(value.Mac[:], mac)
	var rows []addrRow
	for _, a := range addrs {
		rows = append(rows, addrRow{a, value})
	}
	if err := replaceAddrs[bpf.IPv4Announcement](t.byID["announced"], rows); err != nil {
		return fmt.Errorf("write announced addresses: %w", err)
	}
	return nil
}

type addrRow struct {
	addr  netip.Addr
	value any
}

// replaceAddrs adds what is missing before it removes what is too much.
func replaceAddrs[V any](m *ebpf.Map, rows []addrRow) error {
	stale := map[bpf.IPv4Addr]bool{}
	var key bpf.IPv4Addr
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		stale[key] = true
	}
	errs := []error{it.Err()}
	for _, r := range rows {
		if !r.addr.Is4() {
			continue
		}
		delete(stale, addr4(r.addr))
		errs = append(errs, m.Put(addr4(r.addr), r.value))
	}
	for k := range stale {
		errs = append(errs, ignoreMissing(m.Delete(k)))
	}
	return errors.Join(errs...)
}
