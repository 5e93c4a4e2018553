package maps

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// The generated types are what the compiler of the programs sees.
func TestRowsHaveTheLayoutOfThePrograms(t *testing.T) {
	for _, tc := range []struct{ ours, four, six any }{
		{nearRow[Addr4]{}, bpf.IPv4NearPod{}, nil},
		{nearRow[Addr6]{}, nil, bpf.IPv6NearPod{}},
		{serviceKeyRow[Addr4]{}, bpf.IPv4ServiceKey{}, nil},
		{serviceKeyRow[Addr6]{}, nil, bpf.IPv6ServiceKey{}},
		{slotRow[Addr4]{}, bpf.IPv4Slot{}, nil},
		{slotRow[Addr6]{}, nil, bpf.IPv6Slot{}},
		{affinityKeyRow[Addr4]{}, bpf.IPv4AffinityKey{}, nil},
		{affinityKeyRow[Addr6]{}, nil, bpf.IPv6AffinityKey{}},
		{affinityRow[Addr4]{}, bpf.IPv4Affinity{}, nil},
		{affinityRow[Addr6]{}, nil, bpf.IPv6Affinity{}},
		{tupleRow[Addr4]{}, bpf.IPv4Tuple{}, nil},
		{tupleRow[Addr6]{}, nil, bpf.IPv6Tuple{}},
		{peerKeyRow[Addr4]{}, bpf.IPv4PeerKey{}, nil},
		{peerKeyRow[Addr6]{}, nil, bpf.IPv6PeerKey{}},
		{natRow[Addr4]{}, bpf.IPv4Nat{}, nil},
		{natRow[Addr6]{}, nil, bpf.IPv6Nat{}},
		{sourceRangeRow[Addr4]{}, bpf.IPv4SourceRangeKey{}, nil},
		{sourceRangeRow[Addr6]{}, nil, bpf.IPv6SourceRangeKey{}},
		{rangeRow[Addr4]{}, bpf.IPv4RangeKey{}, nil},
		{rangeRow[Addr6]{}, nil, bpf.IPv6RangeKey{}},
		// Used for both families.
		{bpf.IPv4Announcement{}, nil, bpf.IPv6Announcement{}},
		{bpf.IPv4Endpoint{}, nil, bpf.IPv6Endpoint{}},
		{bpf.IPv4Service{}, nil, bpf.IPv6Service{}},
		{bpf.IPv4Flow{}, nil, bpf.IPv6Flow{}},
		{bpf.IPv4NodeState{}, nil, bpf.IPv6NodeState{}},
	} {
		want := tc.four
		if want == nil {
			want = tc.six
		}
		sameLayout(t, reflect.TypeOf(tc.ours), reflect.TypeOf(want))
	}
}

func sameLayout(t *testing.T, ours, want reflect.Type) {
	t.Helper()
	if ours.Size() != want.Size() {
		t.Errorf("%s has %d bytes, %s has %d", ours, ours.Size(), want, want.Size())
	}
	for i := range want.NumField() {
		w := want.Field(i)
		if w.Name == "_" || w.Type.Size() == 0 {
			continue
		}
		o, ok := ours.FieldByName(w.Name)
		if !ok || o.Offset != w.Offset || o.Type.Size() != w.Type.Size() {
			t.Errorf("%s: field %s is at %d with %d bytes (found: %t), want %d and %d",
				ours, w.Name, o.Offset, size(o.Type), ok, w.Offset, w.Type.Size())
		}
	}
}

func size(t reflect.Type) uintptr {
	if t == nil {
		return 0
	}
	return t.Size()
}

func TestAddressesSurviveConversion(t *testing.T) {
	for _, s := range []string{"10.96.0.10", "255.255.255.255", "0.0.0.0"} {
		a := netip.MustParseAddr(s)
		if got := FromWords(ToWords[Addr4](a)); got != a {
			t.Errorf("%s became %s", a, got)
		}
	}
	for _, s := range []string{"fd00::1", "::", "2001:db8:1:2:3:4:5:6", "::ffff:10.0.0.1"} {
		a := netip.MustParseAddr(s)
		if got := FromWords(ToWords[Addr6](a)); got != a {
			t.Errorf("%s became %s", a, got)
		}
	}
	// Network byte order, whatever the machine has.
	if got, want := netPort(0x1234), [2]byte{0x12, 0x34}; [2]byte{byte(got), byte(got >> 8)} != want && [2]byte{byte(got >> 8), byte(got)} != want {
		t.Errorf("port became %x", got)
	}
}
