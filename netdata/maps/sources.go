package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// serviceBits is the part of a source range's key that names the service.
const serviceBits = 32

// SourceRanges reads who may use which service, by the ID of its row.
func (t *Tables) SourceRanges() (map[uint32][]netip.Prefix, error) {
	out := map[uint32][]netip.Prefix{}
	err := t.each(func(f *family) error { return pick(f, sourceRanges[Addr4], sourceRanges[Addr6])(f, out) })
	return out, err
}

func sourceRanges[A Words](f *family, out map[uint32][]netip.Prefix) error {
	var key sourceRangeRow[A]
	var one uint32
	it := f.byID["source_ranges"].Iterate()
	for it.Next(&key, &one) {
		p := netip.PrefixFrom(FromWords(key.Client), int(key.Prefix)-serviceBits)
		out[key.Service] = append(out[key.Service], p)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read source ranges: %w", err)
	}
	return nil
}

// PutSourceRange lets clients of a range use the service whose row has the ID.
func (t *Tables) PutSourceRange(service uint32, clients netip.Prefix) error {
	return t.sourceRange("write", service, clients, func(m *ebpf.Map, key any) error { return m.Put(key, uint32(1)) })
}

// DeleteSourceRange undoes PutSourceRange; a missing range is not an error.
func (t *Tables) DeleteSourceRange(service uint32, clients netip.Prefix) error {
	return t.sourceRange("delete", service, clients, func(m *ebpf.Map, key any) error { return ignoreMissing(m.Delete(key)) })
}

func (t *Tables) sourceRange(what string, service uint32, clients netip.Prefix, do func(*ebpf.Map, any) error) error {
	f, err := t.of(clients.Addr())
	if err != nil {
		return err
	}
	key := pick(f, sourceRangeKey[Addr4], sourceRangeKey[Addr6])(service, clients.Masked())
	if err := do(f.byID["source_ranges"], key); err != nil {
		return fmt.Errorf("%s source range %s: %w", what, clients, err)
	}
	return nil
}

func sourceRangeKey[A Words](service uint32, clients netip.Prefix) any {
	return sourceRangeRow[A]{Prefix: uint32(serviceBits + clients.Bits()), Service: service, Client: ToWords[A](clients.Addr())}
}

// SetUnmasqueraded makes the given ranges the ones that see pods' own addresses. Those of a family
// that the node does not have are left alone.
func (t *Tables) SetUnmasqueraded(ranges []netip.Prefix) error {
	err := t.each(func(f *family) error { return pick(f, setUnmasqueraded[Addr4], setUnmasqueraded[Addr6])(f, ranges) })
	if err != nil {
		return fmt.Errorf("write ranges that are not masqueraded: %w", err)
	}
	return nil
}

func setUnmasqueraded[A Words](f *family, ranges []netip.Prefix) error {
	rows := map[rangeRow[A]]uint32{}
	for _, r := range ranges {
		if FamilyOf(r.Addr()) == f.family {
			rows[rangeRow[A]{Prefix: uint32(r.Bits()), Addr: ToWords[A](r.Masked().Addr())}] = 1
		}
	}
	return replace(f.byID["unmasqueraded"], rows)
}

// SetTunnelled makes the given ranges of pods those behind a tunnel. The values are the addresses of this node that pods there
// answer through it. Ranges of a family that the node does not have are left out.
func (t *Tables) SetTunnelled(ranges map[netip.Prefix]netip.Addr) error {
	err := t.each(func(f *family) error { return pick(f, setTunnelled[Addr4], setTunnelled[Addr6])(f, ranges) })
	if err != nil {
		return fmt.Errorf("write ranges behind tunnels: %w", err)
	}
	return nil
}

func setTunnelled[A Words](f *family, ranges map[netip.Prefix]netip.Addr) error {
	rows := map[rangeRow[A]]A{}
	for r, own := range ranges {
		if FamilyOf(r.Addr()) == f.family && FamilyOf(own) == f.family {
			rows[rangeRow[A]{Prefix: uint32(r.Bits()), Addr: ToWords[A](r.Masked().Addr())}] = ToWords[A](own)
		}
	}
	return replace(f.byID["tunnelled"], rows)
}

// replace makes rows the content of a small map: what is missing is added before what is too
// much is removed.
func replace[K, V comparable](m *ebpf.Map, rows map[K]V) error {
	stale := map[K]bool{}
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		stale[key] = true
	}
	errs := []error{it.Err()}
	for k, v := range rows {
		delete(stale, k)
		errs = append(errs, m.Put(k, v))
	}
	for k := range stale {
		errs = append(errs, ignoreMissing(m.Delete(k)))
	}
	return errors.Join(errs...)
}
