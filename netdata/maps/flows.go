package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// batchSize is how many rows are read by one system call.
const batchSize = 1024

// Tuple is a flow as seen on the wire.
type Tuple struct {
	Src, Dst netip.AddrPort
	Proto    Protocol
}

// Reverse is the same flow seen from the other end.
func (t Tuple) Reverse() Tuple { return Tuple{Src: t.Dst, Dst: t.Src, Proto: t.Proto} }

func (t Tuple) String() string { return fmt.Sprintf("%s %s->%s", t.Proto, t.Src, t.Dst) }

// FlowFlags are the states of a flow.
type FlowFlags uint16

// The order is that of enum flow_flags in bpf/src/tables.h.
const (
	FlowSwapped FlowFlags = 1 << iota
	FlowReplied
	FlowFinOrig
	FlowFinReply
	FlowReset
	FlowNAT
	FlowNode
)

// Closed says that both sides have closed or one has reset the connection.
func (f FlowFlags) Closed() bool {
	const both = FlowFinOrig | FlowFinReply
	return f&FlowReset != 0 || f&both == both
}

// Flow is a row of conntrack.
type Flow struct {
	// Tuple has its ends in the order of the key, not of the flow's direction.
	Tuple Tuple
	// Seen is when the last packet passed, in ticks; see [Ticks].
	Seen     uint32
	Revision uint32
	Flags    FlowFlags
}

// FromOriginator is the flow in the direction of the one who began it.
func (f Flow) FromOriginator() Tuple {
	if f.Flags&FlowSwapped != 0 {
		return f.Tuple.Reverse()
	}
	return f.Tuple
}

// Translation is a row of the translation table.
type Translation struct {
	From, To Tuple
}

// Flows calls visit for every row of conntrack. Rows that come and go
// meanwhile may be missed or seen twice.
func (t *Tables) Flows(visit func(Flow)) error {
	return t.each(func(f *family) error { return pick(f, flows[Addr4], flows[Addr6])(f, visit) })
}

func flows[A Words](f *family, visit func(Flow)) error {
	return each(f.byID["ct"], func(k tupleRow[A], v bpf.IPv4Flow) {
		visit(Flow{Tuple: fromTuple(k), Seen: v.Seen, Revision: v.Revision, Flags: FlowFlags(v.Flags)})
	})
}

// Flow reads the row of a flow again.
func (t *Tables) Flow(key Tuple) (row Flow, found bool, err error) {
	f, err := t.of(key.Src.Addr())
	if err != nil {
		return Flow{}, false, err
	}
	var v bpf.IPv4Flow
	err = f.byID["ct"].Lookup(pick(f, anyTuple[Addr4], anyTuple[Addr6])(key), &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Flow{}, false, nil
	}
	if err != nil {
		return Flow{}, false, fmt.Errorf("read flow %s: %w", key, err)
	}
	return Flow{Tuple: key, Seen: v.Seen, Revision: v.Revision, Flags: FlowFlags(v.Flags)}, true, nil
}

func anyTuple[A Words](t Tuple) any { return toTuple[A](t) }

// Translations calls visit for every row of the translation table.
func (t *Tables) Translations(visit func(Translation)) error {
	return t.each(func(f *family) error { return pick(f, translations[Addr4], translations[Addr6])(f, visit) })
}

func translations[A Words](f *family, visit func(Translation)) error {
	return each(f.byID["nats"], func(k tupleRow[A], v natRow[A]) {
		visit(Translation{From: fromTuple(k), To: translated(k, v)})
	})
}

// Translation looks up one row.
func (t *Tables) Translation(from Tuple) (to Tuple, found bool, err error) {
	f, err := t.of(from.Src.Addr())
	if err != nil {
		return Tuple{}, false, err
	}
	return pick(f, translation[Addr4], translation[Addr6])(f, from)
}

func translation[A Words](f *family, from Tuple) (to Tuple, found bool, err error) {
	var v natRow[A]
	k := toTuple[A](from)
	if err := f.byID["nats"].Lookup(k, &v); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return Tuple{}, false, nil
		}
		return Tuple{}, false, fmt.Errorf("read translation of %s: %w", from, err)
	}
	return translated(k, v), true, nil
}

// DeleteFlow removes a row of conntrack; the tuple is that of the key.
func (t *Tables) DeleteFlow(key Tuple) error { return t.deleteTuple("ct", key) }

// DeleteTranslation removes one row of the translation table.
func (t *Tables) DeleteTranslation(from Tuple) error { return t.deleteTuple("nats", from) }

func (t *Tables) deleteTuple(name string, key Tuple) error {
	f, err := t.of(key.Src.Addr())
	if err != nil {
		return err
	}
	return ignoreMissing(pick(f, deleteTuple[Addr4], deleteTuple[Addr6])(f, name, key))
}

func deleteTuple[A Words](f *family, name string, key Tuple) error {
	return f.byID[name].Delete(toTuple[A](key))
}

// CutAffinity forgets which clients of a service were bound to a backend.
func (t *Tables) CutAffinity(service uint32, gone func(netip.AddrPort) bool) error {
	return t.each(func(f *family) error { return pick(f, cutAffinity[Addr4], cutAffinity[Addr6])(f, service, gone) })
}

func cutAffinity[A Words](f *family, service uint32, gone func(netip.AddrPort) bool) error {
	var stale []affinityKeyRow[A]
	err := each(f.byID["affinities"], func(k affinityKeyRow[A], v affinityRow[A]) {
		if k.Service == service && gone(netip.AddrPortFrom(FromWords(v.Addr), hostPort(v.Port))) {
			stale = append(stale, k)
		}
	})
	for _, k := range stale {
		err = errors.Join(err, ignoreMissing(f.byID["affinities"].Delete(k)))
	}
	return err
}

func each[K, V any](m *ebpf.Map, visit func(K, V)) error {
	keys, values := make([]K, batchSize), make([]V, batchSize)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(keys[i], values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read map: %w", err)
		}
	}
}

func toTuple[A Words](t Tuple) tupleRow[A] {
	return tupleRow[A]{
		Saddr: ToWords[A](t.Src.Addr()), Daddr: ToWords[A](t.Dst.Addr()),
		Sport: netPort(t.Src.Port()), Dport: netPort(t.Dst.Port()),
		Proto: uint8(t.Proto),
	}
}

func fromTuple[A Words](t tupleRow[A]) Tuple {
	return Tuple{
		Src:   netip.AddrPortFrom(FromWords(t.Saddr), hostPort(t.Sport)),
		Dst:   netip.AddrPortFrom(FromWords(t.Daddr), hostPort(t.Dport)),
		Proto: Protocol(t.Proto),
	}
}

func translated[A Words](k tupleRow[A], v natRow[A]) Tuple {
	return fromTuple(tupleRow[A]{Saddr: v.Saddr, Daddr: v.Daddr, Sport: v.Sport, Dport: v.Dport, Proto: k.Proto})
}
