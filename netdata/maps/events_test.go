package maps

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// The struct of the programs, of either family, is what is decoded here.
func TestEventLayout(t *testing.T) {
	if a, b := unsafe.Sizeof(bpf.IPv4Event{}), unsafe.Sizeof(bpf.IPv6Event{}); a != eventSize || b != eventSize {
		t.Errorf("struct event has %d and %d bytes, want %d", a, b, eventSize)
	}
	// The programs fill the fields at these places, whatever Go calls them.
	raw := make([]byte, eventSize)
	binary.NativeEndian.PutUint64(raw, uint64(5*time.Second))
	copy(raw[8:], netip.MustParseAddr("fd00::1").AsSlice())
	copy(raw[24:], netip.MustParseAddr("fd00::2").AsSlice())
	copy(raw[40:], netip.MustParseAddr("fd00::3").AsSlice())
	binary.BigEndian.PutUint16(raw[56:], 1000)
	binary.BigEndian.PutUint16(raw[58:], 2000)
	binary.BigEndian.PutUint16(raw[60:], 3000)
	binary.NativeEndian.PutUint16(raw[62:], 1500)
	copy(raw[64:], []byte{byte(EventDrop), 2, byte(HookToPod), 6, byte(UDP), 0x12})
	binary.NativeEndian.PutUint16(raw[70:], uint16(FlowSwapped|FlowNAT))
	want := Event{
		Time: 5 * time.Second, Kind: EventDrop, Reason: 2, Hook: HookToPod, TCPFlags: 0x12, Flow: FlowNAT, Length: 1500,
		Tuple: Tuple{Src: netip.MustParseAddrPort("[fd00::1]:1000"), Dst: netip.MustParseAddrPort("[fd00::2]:2000"), Proto: UDP},
		Asked: netip.MustParseAddrPort("[fd00::3]:3000"),
	}
	var got Event
	if err := got.decode(raw); err != nil || got != want {
		t.Errorf("got  %+v (%v)\nwant %+v", got, err, want)
	}
	if err := got.decode(raw[:eventSize-1]); err == nil {
		t.Error("an event that is cut short is decoded")
	}
	clear(raw[8:56])
	raw[67] = 4
	copy(raw[8:], []byte{192, 0, 2, 1})
	if err := got.decode(raw); err != nil || got.Tuple.Src != netip.MustParseAddrPort("192.0.2.1:1000") || got.Asked.IsValid() {
		t.Errorf("IPv4: %+v (%v)", got, err)
	}
}

func TestRingHoldsAWindowOfAllCPUs(t *testing.T) {
	for cpus, want := range map[int]uint32{1: 128 << 10, 2: 256 << 10, 8: 1 << 20, 256: ringMax} {
		if got := ringSize(cpus); got != want {
			t.Errorf("%d CPUs: %d bytes, want %d", cpus, got, want)
		}
	}
}

func TestHooksAndReasonsHaveNames(t *testing.T) {
	for h := HookUnknown; h <= HookSocket; h++ {
		if h.String() == "" {
			t.Errorf("hook %d has no name", h)
		}
	}
	if HookFromPod.String() != "from-pod" || Hook(7).String() != "hook 7" {
		t.Errorf("%s, %s", HookFromPod, Hook(7))
	}
	if DropReason(200).String() != "reason 200" {
		t.Errorf("a reason of a newer version is %s", DropReason(200))
	}
	if len(DropReasons()) != len(dropReasons)-1 {
		t.Errorf("%d reasons, want all but none", len(DropReasons()))
	}
}

func TestFlowState(t *testing.T) {
	for flags, want := range map[FlowFlags]FlowState{
		0: FlowNew, FlowSwapped: FlowNew, FlowReplied: FlowEstablished, FlowReplied | FlowFinOrig: FlowClosing,
		FlowFinOrig | FlowFinReply: FlowClosed, FlowReset: FlowClosed,
	} {
		if got := flags.State(); got != want {
			t.Errorf("flags %b: %s, want %s", flags, got, want)
		}
	}
}
