package conntrack

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bothy-os/bothy/netdata/maps"
)

// fakeTable keeps flows by key and translations by what they are found under.
type fakeTable struct {
	flows        map[maps.Tuple]maps.Flow
	translations map[maps.Tuple]maps.Tuple
	walks        int    // through the translations
	walked       func() // what happens while flows are read
}

func (f *fakeTable) Flows(visit func(maps.Flow)) error {
	for _, v := range f.flows {
		visit(v)
	}
	if f.walked != nil {
		f.walked()
	}
	return nil
}

func (f *fakeTable) Flow(key maps.Tuple) (maps.Flow, bool, error) {
	row, found := f.flows[key]
	return row, found, nil
}

func (f *fakeTable) Translations(visit func(maps.Translation)) error {
	f.walks++
	for from, to := range f.translations {
		visit(maps.Translation{From: from, To: to})
	}
	return nil
}

func (f *fakeTable) Translation(from maps.Tuple) (maps.Tuple, bool, error) {
	to, ok := f.translations[from]
	return to, ok, nil
}

func (f *fakeTable) DeleteFlow(key maps.Tuple) error { delete(f.flows, key); return nil }
func (f *fakeTable) DeleteTranslation(from maps.Tuple) error {
	delete(f.translations, from)
	return nil
}
func (f *fakeTable) CutAffinity(uint32, func(netip.AddrPort) bool) error { return nil }

func (f *fakeTable) flow(t maps.Tuple, age time.Duration, flags maps.FlowFlags) {
	f.flows[t] = maps.Flow{Tuple: t, Seen: now - maps.Ticks(age), Flags: flags}
}

// translate adds both rows of orig -> actual.
func (f *fakeTable) translate(orig, actual maps.Tuple) {
	f.translations[orig] = actual
	f.translations[actual.Reverse()] = orig.Reverse()
}

const now = 1 << 20

func newFake() (*fakeTable, *Collector) {
	f := &fakeTable{flows: map[maps.Tuple]maps.Flow{}, translations: map[maps.Tuple]maps.Tuple{}}
	c := New(f, func() (map[netip.Addr]string, error) { return nil, nil }, slog.New(slog.DiscardHandler))
	c.destroySockets = func(map[netip.AddrPort]bool) error { return nil }
	return f, c
}

func tuple(proto maps.Protocol, src, dst string) maps.Tuple {
	return maps.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Proto: proto}
}

func TestSweepFollowsTimeouts(t *testing.T) {
	const margin = 3 * time.Second
	for _, tc := range []struct {
		name    string
		proto   maps.Protocol
		flags   maps.FlowFlags
		timeout time.Duration
	}{
		{"half-open TCP", maps.TCP, 0, tcpHalfOpen},
		{"established TCP", maps.TCP, maps.FlowReplied, tcpEstablished},
		{"half-closed TCP", maps.TCP, maps.FlowReplied | maps.FlowFinOrig, tcpEstablished},
		{"closed TCP", maps.TCP, maps.FlowReplied | maps.FlowFinOrig | maps.FlowFinReply, tcpClosed},
		{"reset TCP", maps.TCP, maps.FlowReset, tcpClosed},
		{"one-way UDP", maps.UDP, 0, udpOneWay},
		{"UDP", maps.UDP, maps.FlowReplied, udpReplied},
		{"half-open SCTP", maps.SCTP, 0, tcpHalfOpen},
		{"SCTP", maps.SCTP, maps.FlowReplied, sctpReplied},
		{"aborted SCTP", maps.SCTP, maps.FlowReplied | maps.FlowReset, tcpClosed},
		{"ping", 1, maps.FlowReplied, other},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, c := newFake()
			young, old := tuple(tc.proto, "10.0.0.1:1", "10.0.0.2:2"), tuple(tc.proto, "10.0.0.1:3", "10.0.0.2:2")
			f.flow(young, tc.timeout-margin, tc.flags)
			f.flow(old, tc.timeout+margin, tc.flags)
			if _, _, err := c.Sweep(now); err != nil {
				t.Fatal(err)
			}
			if _, ok := f.flows[young]; !ok {
				t.Error("a flow within its time was removed")
			}
			if _, ok := f.flows[old]; ok {
				t.Error("a flow past its time was kept")
			}
		})
	}
}

// A sweep takes its time; meanwhile a client may use the ports of an old connection again.
func TestSweepLeavesWhatBeganMeanwhile(t *testing.T) {
	f, c := newFake()
	key, orig := tuple(maps.TCP, "10.0.0.1:1", "10.0.0.2:2"), tuple(maps.TCP, "10.0.0.1:1", "10.96.0.1:80")
	f.flow(key, tcpClosed+time.Minute, maps.FlowReplied|maps.FlowReset)
	f.translate(orig, key)
	f.walked = func() { f.flow(key, 0, maps.FlowReplied) }
	if _, _, err := c.Sweep(now); err != nil {
		t.Fatal(err)
	}
	if len(f.flows) != 1 || len(f.translations) != 2 {
		t.Errorf("%d flows and %d translations are left, want the new connection's 1 and 2", len(f.flows), len(f.translations))
	}
}

// The key of a flow orders its ends, so the translation may be found either way.
func TestSweepRemovesBothTranslations(t *testing.T) {
	orig, actual := tuple(maps.TCP, "10.0.0.9:1000", "10.96.0.1:80"), tuple(maps.TCP, "10.0.0.9:1000", "10.0.0.2:8080")
	for name, key := range map[string]maps.Tuple{"as sent": actual, "swapped": actual.Reverse()} {
		t.Run(name, func(t *testing.T) {
			f, c := newFake()
			f.translate(orig, actual)
			f.flow(key, time.Hour, maps.FlowReset)
			if _, _, err := c.Sweep(now); err != nil {
				t.Fatal(err)
			}
			if len(f.translations) != 0 {
				t.Errorf("left: %v", f.translations)
			}
		})
	}
}

// The client was balanced anew from the same port; the old flow ends later.
func TestSweepKeepsTheTranslationOfALaterFlow(t *testing.T) {
	f, c := newFake()
	orig := tuple(maps.UDP, "10.0.0.9:1000", "10.96.0.1:80")
	before, after := tuple(maps.UDP, "10.0.0.9:1000", "10.0.0.2:80"), tuple(maps.UDP, "10.0.0.9:1000", "10.0.0.3:80")
	f.translate(orig, before)
	f.translate(orig, after)
	f.flow(before, time.Hour, 0)
	f.flow(after, 0, 0)
	if _, _, err := c.Sweep(now); err != nil {
		t.Fatal(err)
	}
	want := map[maps.Tuple]maps.Tuple{orig: after, after.Reverse(): orig.Reverse()}
	if diff := cmp.Diff(want, f.translations, cmp.Comparer(func(a, b maps.Tuple) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestForgetRemovesAllFlowsOfAPod(t *testing.T) {
	f, c := newFake()
	vip := "10.96.0.1:80"
	for client, backend := range map[string]string{"10.0.0.1:1": "10.0.0.2:2", "10.0.0.3:1": "10.0.0.4:2"} {
		actual := tuple(maps.TCP, client, backend)
		f.flow(actual, 0, maps.FlowReplied)
		f.translate(tuple(maps.TCP, client, vip), actual)
	}
	c.Forget(netip.MustParseAddr("10.0.0.2"))
	if _, removed, err := c.Sweep(now); err != nil || removed != 1 {
		t.Fatalf("removed %d, err %v", removed, err)
	}
	stays := tuple(maps.TCP, "10.0.0.3:1", "10.0.0.4:2")
	if _, ok := f.flows[stays]; !ok || len(f.flows) != 1 {
		t.Errorf("flows left: %v", f.flows)
	}
	if len(f.translations) != 2 || f.translations[stays.Reverse()].Src.String() != vip {
		t.Errorf("translations left: %v", f.translations)
	}
}

func TestCutBackendsEndsDatagramsOnly(t *testing.T) {
	f, c := newFake()
	vip := "10.96.0.1:53"
	dead, alive := "10.0.0.2:53", "10.0.0.3:53"
	toDead := tuple(maps.UDP, "10.0.0.9:1000", vip)
	toAlive := tuple(maps.UDP, "10.0.0.9:1001", vip)
	stream := tuple(maps.TCP, "10.0.0.9:1002", vip)
	f.translate(toDead, tuple(maps.UDP, "10.0.0.9:1000", dead))
	f.translate(toAlive, tuple(maps.UDP, "10.0.0.9:1001", alive))
	f.translate(stream, tuple(maps.TCP, "10.0.0.9:1002", dead))
	gone := []netip.AddrPort{netip.MustParseAddrPort(dead)}
	for _, proto := range []maps.Protocol{maps.TCP, maps.UDP} {
		if err := c.CutBackends(maps.Frontend{Addr: netip.MustParseAddrPort(vip), Proto: proto}, 1, gone); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.endCuts(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.translations[toDead]; ok {
		t.Error("the datagram flow to the dead backend was kept")
	}
	for _, x := range []maps.Tuple{toAlive, stream} {
		if _, ok := f.translations[x]; !ok {
			t.Errorf("%s was cut", x)
		}
	}
}

func TestIntervalAdapts(t *testing.T) {
	if got := nextInterval(time.Minute, 100, 50); got >= time.Minute {
		t.Errorf("much expired, but the next sweep comes after %s", got)
	}
	if got := nextInterval(time.Minute, 100, 0); got <= time.Minute {
		t.Errorf("nothing expired, but the next sweep comes after %s", got)
	}
	if got := nextInterval(sweepMax, 0, 0); got != sweepMax {
		t.Errorf("interval grew to %s", got)
	}
}
