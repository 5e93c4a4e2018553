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

// PutEndpoint makes the address known, as a sender from that interface and as a destination.
func (t *Tables) PutEndpoint(e Endpoint) error {
	f, err := t.of(e.Addr)
	if err != nil {
		return err
	}
	return pick(f, putEndpoint[Addr4], putEndpoint[Addr6])(f, e)
}

func putEndpoint[A Words](f *family, e Endpoint) error {
	addr := ToWords[A](e.Addr)
	row := bpf.IPv4Endpoint{Ifindex: uint32(e.Ifindex), Identity: e.Identity, Netns: e.Netns}
	copy(row.Mac[:], e.MAC)
	if err := f.byID["endpoints"].Put(addr, row); err != nil {
		return fmt.Errorf("write endpoint row of %s: %w", e.Addr, err)
	}
	return putNear(f, addr, row)
}

// DeleteEndpoint forgets an address. A row that does not exist is not an error.
func (t *Tables) DeleteEndpoint(addr netip.Addr) error {
	f, err := t.of(addr)
	if err != nil {
		return nil //nolint:nilerr // the node has no such family, so there is no row
	}
	return pick(f, deleteEndpoint[Addr4], deleteEndpoint[Addr6])(f, addr)
}

func deleteEndpoint[A Words](f *family, addr netip.Addr) error {
	key := ToWords[A](addr)
	if err := errors.Join(deleteNear(f, key), ignoreMissing(f.byID["endpoints"].Delete(key))); err != nil {
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

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
