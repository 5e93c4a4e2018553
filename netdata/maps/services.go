package maps

import (
	"errors"
	"fmt"
	"maps"
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
// every address of the node in its family.
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

// Family is that of the address.
func (f Frontend) Family() Family { return FamilyOf(f.Addr.Addr()) }

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

// scopeOutside is SCOPE_OUTSIDE in bpf/src/tables.h.
const scopeOutside = 1

func serviceKey[A Words](f Frontend) serviceKeyRow[A] {
	k := serviceKeyRow[A]{Addr: ToWords[A](f.Addr.Addr()), Port: netPort(f.Addr.Port()), Proto: uint8(f.Proto)}
	if f.Outside {
		k.Scope = scopeOutside
	}
	return k
}

// Services reads the services tables of both families, without the rows of host ports.
func (t *Tables) Services() (map[Frontend]ServiceRow, error) {
	out, err := t.allServices()
	maps.DeleteFunc(out, func(_ Frontend, r ServiceRow) bool { return r.Flags&serviceHostPort != 0 })
	return out, err
}

func (t *Tables) allServices() (map[Frontend]ServiceRow, error) {
	out := map[Frontend]ServiceRow{}
	err := t.each(func(f *family) error { return pick(f, services[Addr4], services[Addr6])(f, out) })
	return out, err
}

func services[A Words](f *family, out map[Frontend]ServiceRow) error {
	var key serviceKeyRow[A]
	var row bpf.IPv4Service
	it := f.byID["services"].Iterate()
	for it.Next(&key, &row) {
		f := Frontend{
			Addr:  netip.AddrPortFrom(FromWords(key.Addr), hostPort(key.Port)),
			Proto: Protocol(key.Proto), Outside: key.Scope == scopeOutside,
		}
		out[f] = ServiceRow{ID: row.Id, Base: row.Base, Count: row.Count, Affinity: row.Affinity, Flags: ServiceFlags(row.Flags)}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read services table: %w", err)
	}
	return nil
}

// ErrTaken says that an address and port are in use: by a pod's host port, or by a Service.
var ErrTaken = errors.New("the port is taken")

// PutService writes one frontend. Its slots must have been written before. A row that is new must
// be said to be: it then fails with [ErrTaken] where a host port is.
func (t *Tables) PutService(f Frontend, r ServiceRow, isNew bool) error {
	in, err := t.of(f.Addr.Addr())
	if err != nil {
		return err
	}
	row := bpf.IPv4Service{Id: r.ID, Base: r.Base, Count: r.Count, Affinity: r.Affinity, Flags: uint16(r.Flags)}
	flags := ebpf.UpdateExist
	if isNew {
		flags = ebpf.UpdateNoExist
	}
	err = in.byID["services"].Update(in.serviceKey(f), row, flags)
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
	in, err := t.of(f.Addr.Addr())
	if err != nil {
		return err
	}
	if err := ignoreMissing(in.byID["services"].Delete(in.serviceKey(f))); err != nil {
		return fmt.Errorf("delete service row %s: %w", f, err)
	}
	return nil
}

func (f *family) serviceKey(fe Frontend) any {
	if f.family == IPv6 {
		return serviceKey[Addr6](fe)
	}
	return serviceKey[Addr4](fe)
}

// SlotCapacity is the length of the slots array of a family, less what is kept for host ports; 0
// if the node does not have the family.
func (t *Tables) SlotCapacity(of Family) uint32 {
	if !t.Has(of) {
		return 0
	}
	return t.families[of].byID["slots"].MaxEntries() - hostPortSlots
}

// WriteSlots writes an extent in one call. All backends are of one family, and the extent is one
// of its slots.
func (t *Tables) WriteSlots(base uint32, backends []netip.AddrPort) error {
	if len(backends) == 0 {
		return nil
	}
	f, err := t.of(backends[0].Addr())
	if err != nil {
		return err
	}
	return pick(f, writeSlots[Addr4], writeSlots[Addr6])(f, base, backends)
}

func writeSlots[A Words](f *family, base uint32, backends []netip.AddrPort) error {
	keys := make([]uint32, len(backends))
	rows := make([]slotRow[A], len(backends))
	for i, b := range backends {
		keys[i] = base + uint32(i)
		rows[i] = slotRow[A]{Addr: ToWords[A](b.Addr()), Port: netPort(b.Port())}
	}
	if _, err := f.byID["slots"].BatchUpdate(keys, rows, nil); err != nil {
		return fmt.Errorf("write %d slots at %d: %w", len(backends), base, err)
	}
	return nil
}

// ReadSlots reads an extent of a family's slots.
func (t *Tables) ReadSlots(of Family, base uint32, count uint16) ([]netip.AddrPort, error) {
	if !t.Has(of) {
		return nil, fmt.Errorf("read slots: this node has no %s", of)
	}
	f := t.families[of]
	return pick(f, readSlots[Addr4], readSlots[Addr6])(f, base, count)
}

func readSlots[A Words](f *family, base uint32, count uint16) ([]netip.AddrPort, error) {
	out := make([]netip.AddrPort, count)
	for i := range out {
		var row slotRow[A]
		if err := f.byID["slots"].Lookup(base+uint32(i), &row); err != nil {
			return nil, fmt.Errorf("read slot %d: %w", base+uint32(i), err)
		}
		out[i] = netip.AddrPortFrom(FromWords(row.Addr), hostPort(row.Port))
	}
	return out, nil
}
