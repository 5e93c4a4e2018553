package maps

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// Endpoint is a pod on this node.
type Endpoint struct {
	Addr netip.Addr
	// Ifindex is that of the host side of the pod's veth.
	Ifindex int
	// MAC is that of the pod's end.
	MAC net.HardwareAddr
	// Identity is the number policy knows the pod by.
	Identity uint32
}

// PutEndpoint makes the pod known: first as a sender, then as a destination,
// so that nothing is delivered to a pod that could not answer.
func (t *Tables) PutEndpoint(e Endpoint) error {
	iface := bpf.IPv4Iface{Addr: addr4(e.Addr), Identity: e.Identity}
	if err := t.byID["ifaces"].Put(uint32(e.Ifindex), iface); err != nil {
		return fmt.Errorf("write interface row of %s: %w", e.Addr, err)
	}
	row := bpf.IPv4Endpoint{Ifindex: uint32(e.Ifindex), Identity: e.Identity}
	copy(row.Mac[:], e.MAC)
	if err := t.byID["endpoints"].Put(addr4(e.Addr), row); err != nil {
		return fmt.Errorf("write endpoint row of %s: %w", e.Addr, err)
	}
	return nil
}

// DeleteEndpoint forgets the pod with that address and interface. Rows that
// do not exist are not an error.
func (t *Tables) DeleteEndpoint(addr netip.Addr, ifindex int) error {
	var errs []error
	if addr.Is4() {
		errs = append(errs, ignoreMissing(t.byID["endpoints"].Delete(addr4(addr))))
	}
	if ifindex > 0 {
		errs = append(errs, ignoreMissing(t.byID["ifaces"].Delete(uint32(ifindex))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete endpoint rows of %s: %w", addr, err)
	}
	return nil
}

// Endpoints reads the pods the programs know.
func (t *Tables) Endpoints() ([]Endpoint, error) {
	var out []Endpoint
	var key bpf.IPv4Addr
	var row bpf.IPv4Endpoint
	it := t.byID["endpoints"].Iterate()
	for it.Next(&key, &row) {
		out = append(out, Endpoint{
			Addr:     fromAddr4(key),
			Ifindex:  int(row.Ifindex),
			MAC:      net.HardwareAddr(append([]byte(nil), row.Mac[:]...)),
			Identity: row.Identity,
		})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read endpoint rows: %w", err)
	}
	return out, nil
}

// Interfaces reads which address may send from which interface.
func (t *Tables) Interfaces() (map[int]netip.Addr, error) {
	out := map[int]netip.Addr{}
	var key uint32
	var row bpf.IPv4Iface
	it := t.byID["ifaces"].Iterate()
	for it.Next(&key, &row) {
		out[int(key)] = fromAddr4(row.Addr)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read interface rows: %w", err)
	}
	return out, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
