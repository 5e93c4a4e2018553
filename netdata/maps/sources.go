package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// serviceBits is the part of a source range's key that names the service.
const serviceBits = 32

// SourceRanges reads who may use which service, by the ID of its row.
func (t *Tables) SourceRanges() (map[uint32][]netip.Prefix, error) {
	out := map[uint32][]netip.Prefix{}
	var key bpf.IPv4SourceRangeKey
	var one uint32
	it := t.byID["source_ranges"].Iterate()
	for it.Next(&key, &one) {
		p := netip.PrefixFrom(fromAddr4(key.Client), int(key.Prefix)-serviceBits)
		out[key.Service] = append(out[key.Service], p)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read source ranges: %w", err)
	}
	return out, nil
}

// PutSourceRange lets clients of a range use the service whose row has the ID.
func (t *Tables) PutSourceRange(service uint32, clients netip.Prefix) error {
	if err := t.byID["source_ranges"].Put(sourceRangeKey(service, clients), uint32(1)); err != nil {
		return fmt.Errorf("write source range %s: %w", clients, err)
	}
	return nil
}

// DeleteSourceRange undoes PutSourceRange; a missing range is not an error.
func (t *Tables) DeleteSourceRange(service uint32, clients netip.Prefix) error {
	if err := ignoreMissing(t.byID["source_ranges"].Delete(sourceRangeKey(service, clients))); err != nil {
		return fmt.Errorf("delete source range %s: %w", clients, err)
	}
	return nil
}

func sourceRangeKey(service uint32, clients netip.Prefix) bpf.IPv4SourceRangeKey {
	return bpf.IPv4SourceRangeKey{
		Prefix: uint32(serviceBits + clients.Bits()), Service: service, Client: addr4(clients.Masked().Addr()),
	}
}

// SetUnmasqueraded makes the given ranges the ones that see pods' own addresses.
func (t *Tables) SetUnmasqueraded(ranges []netip.Prefix) error {
	stale := map[netip.Prefix]bool{}
	var key bpf.IPv4RangeKey
	var one uint32
	it := t.byID["unmasqueraded"].Iterate()
	for it.Next(&key, &one) {
		stale[netip.PrefixFrom(fromAddr4(key.Addr), int(key.Prefix))] = true
	}
	errs := []error{it.Err()}
	for _, r := range ranges {
		if !r.Addr().Is4() {
			continue
		}
		delete(stale, r.Masked())
		errs = append(errs, t.byID["unmasqueraded"].Put(rangeKey(r.Masked()), uint32(1)))
	}
	for r := range stale {
		errs = append(errs, ignoreMissing(t.byID["unmasqueraded"].Delete(rangeKey(r))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write ranges that are not masqueraded: %w", err)
	}
	return nil
}

func rangeKey(p netip.Prefix) bpf.IPv4RangeKey {
	return bpf.IPv4RangeKey{Prefix: uint32(p.Bits()), Addr: addr4(p.Addr())}
}
