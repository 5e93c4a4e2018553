package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// EventKind is what happened to a flow.
type EventKind uint8

// The order is that of enum event_kind in bpf/src/events.h.
const (
	EventNew EventKind = iota
	EventEnd
	EventDrop
	EventRefuse
	EventConnect

	eventKinds
)

// EventKinds is a set of kinds.
type EventKinds uint32

// Kinds makes a set.
func Kinds(kinds ...EventKind) EventKinds {
	var out EventKinds
	for _, k := range kinds {
		out |= 1 << k
	}
	return out
}

// AllEvents are all kinds.
const AllEvents = EventKinds(1<<eventKinds - 1)

// Event is what the programs tell of one flow at one moment.
type Event struct {
	// Time is on the monotonic clock, since boot.
	Time time.Duration
	Kind EventKind
	// Tuple runs from who began the flow to who really answers it. Ends
	// without ports, and sockets that have none yet, have port 0.
	Tuple Tuple
	// Asked is the service address that Src asked for; invalid if there was none in between.
	Asked    netip.AddrPort
	Reason   DropReason
	Hook     Hook
	TCPFlags uint8
	Flow     FlowFlags
	// Length is that of the dropped frame in bytes, 0 for other kinds.
	Length int
}

// eventSize is that of struct event.
const eventSize = 72

// Events are received through a ring that exists as long as its Listener. Per CPU and
// window of 134 ms at most eventBudget are raised: more than a person reads
// and than a process should follow, and what is left out is counted.
const (
	eventBudget = 1024
	ringMin     = 128 << 10
	ringMax     = 4 << 20
	// ringRecord is an event with the ring's own header.
	ringRecord = eventSize + 8
)

// Listener receives events. There can be one at a time.
type Listener struct {
	tables *Tables
	ring   *ebpf.Map
	reader *ringbuf.Reader
	record ringbuf.Record
	lost   uint64 // before this listener came
}

// Listen has the programs raise events of the given kinds from now on.
func (t *Tables) Listen(kinds EventKinds) (*Listener, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "events", Type: ebpf.RingBuf, MaxEntries: ringSize(cpus)})
	if err != nil {
		return nil, fmt.Errorf("make a ring for events: %w", err)
	}
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read a ring of events: %w", err), ring.Close())
	}
	l := &Listener{tables: t, ring: ring, reader: reader}
	if l.lost, err = t.LostEvents(); err == nil {
		err = t.shared["event_ring"].Put(uint32(0), uint32(ring.FD()))
	}
	if err == nil {
		err = l.Want(kinds)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for events: %w", err), l.Close())
	}
	return l, nil
}

// ringSize is a power of two with room for what all CPUs may raise in one window.
func ringSize(cpus int) uint32 {
	size := uint32(ringMin)
	for size < ringMax && int(size) < cpus*eventBudget*ringRecord {
		size *= 2
	}
	return size
}

// Silence takes the ring of a listener that died without closing away from the programs.
func (t *Tables) Silence() error {
	if err := t.shared["event_control"].Put(uint32(0), bpf.IPv4Listener{}); err != nil {
		return fmt.Errorf("stop events: %w", err)
	}
	if err := t.shared["event_ring"].Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove the ring of events: %w", err)
	}
	return nil
}

// Want changes which kinds are raised.
func (l *Listener) Want(kinds EventKinds) error {
	row := bpf.IPv4Listener{Kinds: uint32(kinds), Budget: eventBudget}
	if err := l.tables.shared["event_control"].Put(uint32(0), row); err != nil {
		return fmt.Errorf("choose events: %w", err)
	}
	return nil
}

// Read waits for the next event. After Close it returns os.ErrClosed.
func (l *Listener) Read(e *Event) error {
	if err := l.reader.ReadInto(&l.record); err != nil {
		if errors.Is(err, ringbuf.ErrClosed) {
			return os.ErrClosed
		}
		return fmt.Errorf("read event: %w", err)
	}
	return e.decode(l.record.RawSample)
}

// Lost is how many events could not be raised since Listen.
func (l *Listener) Lost() (uint64, error) {
	now, err := l.tables.LostEvents()
	return now - l.lost, err
}

// Close ends the events, and a Read that waits.
func (l *Listener) Close() error {
	return errors.Join(l.tables.Silence(), l.reader.Close(), l.ring.Close())
}

// LostEvents counts the events that were wanted and could not be raised, since the node started.
func (t *Tables) LostEvents() (uint64, error) {
	var perCPU []bpf.IPv4EventCpu
	if err := t.shared["event_cpus"].Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter of lost events: %w", err)
	}
	var sum uint64
	for _, c := range perCPU {
		sum += c.Lost
	}
	return sum, nil
}

func (e *Event) decode(raw []byte) error {
	var in bpf.IPv4Event // both families have the same
	if len(raw) < eventSize {
		return fmt.Errorf("event of %d bytes, want %d", len(raw), eventSize)
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &in); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	*e = Event{
		Time: time.Duration(in.Time),
		Kind: EventKind(in.Kind),
		Tuple: Tuple{
			Src:   netip.AddrPortFrom(eventAddr(in.Src, in.Family), hostPort(in.Sport)),
			Dst:   netip.AddrPortFrom(eventAddr(in.Dst, in.Family), hostPort(in.Dport)),
			Proto: Protocol(in.Proto),
		},
		Reason: DropReason(in.Reason), Hook: Hook(in.Hook),
		// Which end comes first in conntrack's key means nothing here.
		Flow:     FlowFlags(in.Flow) &^ FlowSwapped,
		TCPFlags: in.TcpFlags, Length: int(in.Length),
	}
	if in.Asked != ([4]uint32{}) {
		e.Asked = netip.AddrPortFrom(eventAddr(in.Asked, in.Family), hostPort(in.AskedPort))
	}
	return nil
}

func eventAddr(words [4]uint32, family uint8) netip.Addr {
	var b [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	if family == 4 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b)
}

// BootTime is when the programs' clock stood at zero. It moves when the node's clock is set.
func BootTime() (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Time{}, fmt.Errorf("read monotonic clock: %w", err)
	}
	return time.Now().Add(-time.Duration(ts.Nano())), nil
}
