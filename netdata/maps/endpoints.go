package maps

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// Endpoint is one address of a pod on this node.
type Endpoint struct {
	Addr netip.Addr
	// Ifindex is that of the host side of the pod's veth.
	Ifindex int
	// MAC is that of the pod's end.
	MAC net.HardwareAddr
	// Identity is the number policy knows the pod by.
	Identity uint32
	// Netns is the cookie of the pod's network namespace, 0 if it is not known: then its connections
	// are not spliced.
	Netns uint64
}

// PutEndpoint makes the address known: first as a sender, then as a destination,
// so that nothing is delivered to a pod that could not answer.
func (t *Tables) PutEndpoint(e Endpoint) error {
	f, err := t.of(e.Addr)
	if err != nil {
		return err
	}
	return pick(f, putEndpoint[Addr4], putEndpoint[Addr6])(f, e)
}

func putEndpoint[A Words](f *family, e Endpoint) error {
	addr := ToWords[A](e.Addr)
	iface := ifaceRow[A]{Addr: addr, Identity: e.Identity}
	if err := f.byID["ifaces"].Put(uint32(e.Ifindex), iface); err != nil {
		return fmt.Errorf("write interface row of %s: %w", e.Addr, err)
	}
	row := bpf.IPv4Endpoint{Ifindex: uint32(e.Ifindex), Identity: e.Identity, Netns: e.Netns}
	copy(row.Mac[:], e.MAC)
	if err := f.byID["endpoints"].Put(addr, row); err != nil {
		return fmt.Errorf("write endpoint row of %s: %w", e.Addr, err)
	}
	return nil
}

// DeleteEndpoint forgets an address of the pod at the interface. Rows that
// do not exist are not an error.
func (t *Tables) DeleteEndpoint(addr netip.Addr, ifindex int) error {
	f, err := t.of(addr)
	if err != nil {
		return nil //nolint:nilerr // the node has no such family, so there is no row
	}
	return pick(f, deleteEndpoint[Addr4], deleteEndpoint[Addr6])(f, addr, ifindex)
}

func deleteEndpoint[A Words](f *family, addr netip.Addr, ifindex int) error {
	err := ignoreMissing(f.byID["endpoints"].Delete(ToWords[A](addr)))
	if ifindex > 0 {
		err = errors.Join(err, ignoreMissing(f.byID["ifaces"].Delete(uint32(ifindex))))
	}
	if err != nil {
		return fmt.Errorf("delete endpoint rows of %s: %w", addr, err)
	}
	return nil
}

// Endpoints reads the pods' addresses that the programs know.
func (t *Tables) Endpoints() ([]Endpoint, error) {
	var out []Endpoint
	err := t.each(func(f *family) error {
		more, err := pick(f, endpoints[Addr4], endpoints[Addr6])(f)
		out = append(out, more...)
		return err
	})
	return out, err
}

func endpoints[A Words](f *family) ([]Endpoint, error) {
	var out []Endpoint
	var key A
	var row bpf.IPv4Endpoint
	it := f.byID["endpoints"].Iterate()
	for it.Next(&key, &row) {
		out = append(out, Endpoint{
			Addr:     FromWords(key),
			Ifindex:  int(row.Ifindex),
			MAC:      net.HardwareAddr(append([]byte(nil), row.Mac[:]...)),
			Identity: row.Identity,
			Netns:    row.Netns,
		})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read endpoint rows: %w", err)
	}
	return out, nil
}

// Interfaces reads which addresses may send from which interface.
func (t *Tables) Interfaces() (map[int][]netip.Addr, error) {
	out := map[int][]netip.Addr{}
	err := t.each(func(f *family) error { return pick(f, interfaces[Addr4], interfaces[Addr6])(f, out) })
	return out, err
}

func interfaces[A Words](f *family, out map[int][]netip.Addr) error {
	var key uint32
	var row ifaceRow[A]
	it := f.byID["ifaces"].Iterate()
	for it.Next(&key, &row) {
		out[int(key)] = append(out[int(key)], FromWords(row.Addr))
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read interface rows: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
