package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that are balanced.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// Frontend is an address that is balanced. An unspecified address (0.0.0.0, ::) stands for
// every address of the node.
type Frontend struct {
	Addr  netip.AddrPort
	Proto Protocol
	// Outside says that the row is for clients outside the cluster only. The row without it
	// must have the flag [ServiceOutsideView].
	Outside bool
}

func (f Frontend) String() string {
	s := fmt.Sprintf("%s/%s", f.Addr, f.Proto)
	if f.Outside {
		s += " from outside"
	}
	return s
}

// ServiceFlags say how a frontend is balanced.
type ServiceFlags uint16

// The order is that of enum service_flags in bpf/src/tables.h.
const (
	// ServiceOutsideView: clients outside the cluster have a row of their own.
	ServiceOutsideView ServiceFlags = 1 << iota
	// ServiceSourceRanges: only clients that PutSourceRange named are served.
	ServiceSourceRanges
	// ServiceDropEmpty: without backends packets are dropped and not refused, because there
	// are some on other nodes.
	ServiceDropEmpty
	// serviceHostPort: the row is a pod's, see hostports.go.
	serviceHostPort
)

// ServiceRow is the value of a frontend.
type ServiceRow struct {
	// ID names the service in the affinity table.
	ID uint32
	// Base and Count are its extent in the slots table.
	Base  uint32
	Count uint16
	// Affinity is the session affinity timeout in seconds, 0 for none.
	Affinity uint32
	Flags    ServiceFlags
}

func serviceKey(f Frontend) bpf.IPv4ServiceKey {
	k := bpf.IPv4ServiceKey{Addr: addr4(f.Addr.Addr()), Port: netPort(f.Addr.Port()), Proto: uint8(f.Proto)}
	if f.Outside {
		k.Scope = 1 // SCOPE_OUTSIDE
	}
	return k
}

func frontend(k bpf.IPv4ServiceKey) Frontend {
	return Frontend{
		Addr:  netip.AddrPortFrom(fromAddr4(k.Addr), hostPort(k.Port)),
		Proto: Protocol(k.Proto), Outside: k.Scope != 0,
	}
}

// Services reads the services table, without the rows of host ports.
func (t *Tables) Services() (map[Frontend]ServiceRow, error) {
	return t.services(func(f ServiceFlags) bool { return f&serviceHostPort == 0 })
}

func (t *Tables) services(want func(ServiceFlags) bool) (map[Frontend]ServiceRow, error) {
	out := map[Frontend]ServiceRow{}
	var key bpf.IPv4ServiceKey
	var row bpf.IPv4Service
	it := t.byID["services"].Iterate()
	for it.Next(&key, &row) {
		if flags := ServiceFlags(row.Flags); want(flags) {
			out[frontend(key)] = ServiceRow{ID: row.Id, Base: row.Base, Count: row.Count, Affinity: row.Affinity, Flags: flags}
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read services table: %w", err)
	}
	return out, nil
}

// ErrTaken says that an address and port are in use: by a pod's host port, or by a Service.
var ErrTaken = errors.New("the port is taken")

// PutService writes one frontend. Its slots must have been written before. A row that is new must
// be said to be: it then fails with [ErrTaken] where a host port is.
func (t *Tables) PutService(f Frontend, r ServiceRow, isNew bool) error {
	row := bpf.IPv4Service{Id: r.ID, Base: r.Base, Count: r.Count, Affinity: r.Affinity, Flags: uint16(r.Flags)}
	flags := ebpf.UpdateExist
	if isNew {
		flags = ebpf.UpdateNoExist
	}
	err := t.byID["services"].Update(serviceKey(f), row, flags)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("%s: %w", f, ErrTaken)
	}
	if err != nil {
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

// SlotCapacity is the length of the slots array, less what is kept for host ports.
func (t *Tables) SlotCapacity() uint32 { return t.byID["slots"].MaxEntries() - hostPortSlots }

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
