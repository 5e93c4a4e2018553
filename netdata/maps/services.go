package maps

import (
	"fmt"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that are balanced.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// Frontend is an address that is balanced.
type Frontend struct {
	Addr  netip.AddrPort
	Proto Protocol
}

func (f Frontend) String() string { return fmt.Sprintf("%s/%s", f.Addr, f.Proto) }

// ServiceRow is the value of a frontend.
type ServiceRow struct {
	// ID names the service in the affinity table.
	ID uint32
	// Base and Count are its extent in the slots table.
	Base  uint32
	Count uint16
	// Affinity is the session affinity timeout in seconds, 0 for none.
	Affinity uint32
}

func serviceKey(f Frontend) bpf.IPv4ServiceKey {
	return bpf.IPv4ServiceKey{Addr: addr4(f.Addr.Addr()), Port: netPort(f.Addr.Port()), Proto: uint8(f.Proto)}
}

// Services reads the services table.
func (t *Tables) Services() (map[Frontend]ServiceRow, error) {
	out := map[Frontend]ServiceRow{}
	var key bpf.IPv4ServiceKey
	var row bpf.IPv4Service
	it := t.byID["services"].Iterate()
	for it.Next(&key, &row) {
		f := Frontend{Addr: netip.AddrPortFrom(fromAddr4(key.Addr), hostPort(key.Port)), Proto: Protocol(key.Proto)}
		out[f] = ServiceRow{ID: row.Id, Base: row.Base, Count: row.Count, Affinity: row.Affinity}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read services table: %w", err)
	}
	return out, nil
}

// PutService writes one frontend. Its slots must have been written before.
func (t *Tables) PutService(f Frontend, r ServiceRow) error {
	row := bpf.IPv4Service{Id: r.ID, Base: r.Base, Count: r.Count, Affinity: r.Affinity}
	if err := t.byID["services"].Put(serviceKey(f), row); err != nil {
		return fmt.Errorf("write service row %s: %w", f, err)
	}
	return nil
}

// DeleteService removes one frontend; a missing one is not an error.
func (t *Tables) DeleteService(f Frontend) error {
	if err := ignoreMissing(t.byID["services"].Delete(serviceKey(f))); err != nil {
		return fmt.Errorf("delete service row %s: %w", f, err)
	}
	return nil
}

// SlotCapacity is the length of the slots array.
func (t *Tables) SlotCapacity() uint32 { return t.byID["slots"].MaxEntries() }

// WriteSlots writes an extent in one call.
func (t *Tables) WriteSlots(base uint32, backends []netip.AddrPort) error {
	if len(backends) == 0 {
		return nil
	}
	keys := make([]uint32, len(backends))
	rows := make([]bpf.IPv4Slot, len(backends))
	for i, b := range backends {
		keys[i] = base + uint32(i)
		rows[i] = bpf.IPv4Slot{Addr: addr4(b.Addr()), Port: netPort(b.Port())}
	}
	if _, err := t.byID["slots"].BatchUpdate(keys, rows, nil); err != nil {
		return fmt.Errorf("write %d slots at %d: %w", len(backends), base, err)
	}
	return nil
}

// ReadSlots reads an extent.
func (t *Tables) ReadSlots(base uint32, count uint16) ([]netip.AddrPort, error) {
	out := make([]netip.AddrPort, count)
	for i := range out {
		var row bpf.IPv4Slot
		if err := t.byID["slots"].Lookup(base+uint32(i), &row); err != nil {
			return nil, fmt.Errorf("read slot %d: %w", base+uint32(i), err)
		}
		out[i] = netip.AddrPortFrom(fromAddr4(row.Addr), hostPort(row.Port))
	}
	return out, nil
}
