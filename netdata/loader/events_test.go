package loader

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/maps"
)

// events listens and returns a function that takes the next event.
func (b *bench) events(kinds maps.EventKinds) func() maps.Event {
	b.t.Helper()
	l, err := b.Tables.Listen(kinds)
	b.must(err)
	got := make(chan maps.Event)
	failed := make(chan error, 1)
	go func() {
		for {
			var e maps.Event
			if err := l.Read(&e); err != nil {
				failed <- err
				return
			}
			got <- e
		}
	}()
	b.t.Cleanup(func() {
		b.must(l.Close())
		if err := <-failed; !errors.Is(err, os.ErrClosed) {
			b.t.Errorf("a listener that was closed read: %v", err)
		}
	})
	return func() maps.Event {
		b.t.Helper()
		select {
		case e := <-got:
			return e
		case err := <-failed:
			failed <- err
			b.t.Fatalf("read: %v", err)
		case <-time.After(10 * time.Second):
			b.t.Fatal("no event came")
		}
		return maps.Event{}
	}
}

func tuple(proto maps.Protocol, src, dst string) maps.Tuple {
	return maps.Tuple{Src: ap(src), Dst: ap(dst), Proto: proto}
}

// TestEvents shares one dataplane, which takes long to verify: the subtests use ports of their own.
func TestEvents(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":8080")
	b.service("10.96.0.21:80", maps.UDP, 1, 0, podB+":8080")
	b.service("10.96.0.22:80", maps.TCP, 2, 0, podA+":8080")
	b.service("10.96.0.23:80", maps.TCP, 3, 0)
	b.service(node+":30080", maps.TCP, 3, 0, podB+":8080")
	b.service(node+":30081", maps.UDP, 4, 0)
	with := func(name string, f func(*testing.T, *bench)) {
		t.Run(name, func(t *testing.T) {
			sub := *b
			sub.t = t
			f(t, &sub)
		})
	}
	eventOfEach(with)
	with("at the end of a connection", eventAtTheEnd)
	with("only while wanted", eventsOnlyWhileWanted)
	with("silence", eventsSilenced)
	with("IPv6", eventIPv6)
	with("bounded", eventsAreBounded) // the last: the window's budget is used up
}

// eventOfEach runs a packet of each kind.
func eventOfEach(with func(string, func(*testing.T, *bench))) {
	for _, tc := range []struct {
		name string
		do   func(*bench)
		want maps.Event
	}{
		{
			"a flow between pods", func(b *bench) { b.asPod(tcp(podA+":1000", podB+":80", flagSYN)) },
			maps.Event{Kind: maps.EventNew, Tuple: tuple(maps.TCP, podA+":1000", podB+":80"), TCPFlags: flagSYN},
		},
		{
			"a flow to a service", func(b *bench) { b.asPod(udp(podA+":1000", "10.96.0.21:80")) },
			maps.Event{Kind: maps.EventNew, Tuple: tuple(maps.UDP, podA+":1000", podB+":8080"), Asked: ap("10.96.0.21:80"), Flow: maps.FlowNAT},
		},
		{
			"a pod that reaches itself", func(b *bench) { b.asPod(tcp(podA+":1000", "10.96.0.22:80", flagSYN)) },
			maps.Event{Kind: maps.EventNew, Tuple: tuple(maps.TCP, podA+":1000", podA+":8080"), Asked: ap("10.96.0.22:80"), TCPFlags: flagSYN, Flow: maps.FlowNAT},
		},
		{
			"a node port", func(b *bench) { b.run(b.objs.FromExt, tcp(far+":5000", node+":30080", flagSYN).frame()) },
			maps.Event{Kind: maps.EventNew, Tuple: tuple(maps.TCP, far+":5000", podB+":8080"), Asked: ap(node + ":30080"), TCPFlags: flagSYN, Flow: maps.FlowNAT},
		},
		{
			"a spoofed source", func(b *bench) { b.run(b.objs.FromPod, udp("10.244.1.99:1000", podB+":80").frame()) },
			maps.Event{Kind: maps.EventDrop, Tuple: tuple(maps.UDP, "10.244.1.99:1000", podB+":80"), Reason: 2, Hook: maps.HookFromPod, Length: 54},
		},
		{"a fragment to the outside", func(b *bench) {
			p := udp(podA+":1000", far+":80")
			p.fragment = 0x2001
			b.run(b.objs.ToExt, p.frame())
		}, maps.Event{Kind: maps.EventDrop, Tuple: tuple(maps.UDP, podA+":0", far+":0"), Reason: 3, Hook: maps.HookToExt, Length: 54}},
		{
			"a service without endpoints", func(b *bench) { b.asPod(tcp(podA+":1000", "10.96.0.23:80", flagSYN)) },
			maps.Event{Kind: maps.EventRefuse, Tuple: tuple(maps.TCP, podA+":1000", "10.96.0.23:80"), Reason: 9, Hook: maps.HookFromPod, TCPFlags: flagSYN},
		},
		{
			"a node port that nobody serves", func(b *bench) { b.run(b.objs.FromExt, udp(far+":5000", node+":30081").frame()) },
			maps.Event{Kind: maps.EventRefuse, Tuple: tuple(maps.UDP, far+":5000", node+":30081"), Reason: 9, Hook: maps.HookFromExt},
		},
	} {
		with(tc.name, func(t *testing.T, b *bench) {
			next := b.events(maps.AllEvents)
			tc.do(b)
			got := next()
			if got.Time == 0 {
				t.Error("the event has no time")
			}
			got.Time = 0
			if got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// A connection that ends is told once, from its originator's side, whoever closes last.
func eventAtTheEnd(t *testing.T, b *bench) {
	next := b.events(maps.Kinds(maps.EventEnd))
	b.asPod(tcp(podA+":2000", "10.96.0.20:80", flagSYN))
	b.asPod(tcp(podB+":8080", podA+":2000", flagSYN|flagACK))
	b.asPod(tcp(podA+":2000", "10.96.0.20:80", flagFIN|flagACK))
	b.asPod(tcp(podB+":8080", podA+":2000", flagFIN|flagACK))
	b.asPod(tcp(podA+":2000", "10.96.0.20:80", flagACK))
	got := next()
	if got.Tuple != tuple(maps.TCP, podA+":2000", podB+":8080") || got.Asked != ap("10.96.0.20:80") || got.Flow&maps.FlowReset != 0 {
		t.Errorf("got %+v", got)
	}
	// The next event is of the next connection: the last segment of the first told nothing.
	b.asPod(tcp(podA+":2001", podB+":80", flagSYN))
	b.asPod(tcp(podB+":80", podA+":2001", flagRST|flagACK))
	got = next()
	if got.Tuple != tuple(maps.TCP, podA+":2001", podB+":80") || got.Flow&maps.FlowReset == 0 {
		t.Errorf("after a reset: %+v", got)
	}
}

// What nobody asked for is not raised, and without a listener nothing is.
func eventsOnlyWhileWanted(t *testing.T, b *bench) {
	drop := udp("10.244.1.99:1000", podB+":80").frame()
	b.run(b.objs.FromPod, drop) // nobody listens
	next := b.events(maps.Kinds(maps.EventDrop))
	b.asPod(tcp(podA+":3000", podB+":80", flagSYN))
	b.run(b.objs.FromPod, drop)
	if got := next(); got.Kind != maps.EventDrop {
		t.Errorf("got %+v, want the drop alone", got)
	}
	if lost, err := b.Tables.LostEvents(); err != nil || lost != 0 {
		t.Errorf("%d lost (%v), want none: what is not wanted is not lost", lost, err)
	}
}

// A flood does not keep the node from its work: what is over the budget is counted and lost.
func eventsAreBounded(t *testing.T, b *bench) {
	before := b.drops("spoofed-source")
	l, err := b.Tables.Listen(maps.AllEvents)
	b.must(err)
	const packets = 200_000
	opts := ebpf.RunOptions{Data: udp("10.244.1.99:1000", podB+":80").frame(), DataOut: make([]byte, 512), Repeat: packets}
	if _, err := b.objs.FromPod.Run(&opts); err != nil {
		t.Fatal(err)
	}
	lost, err := l.Lost()
	b.must(err)
	if lost == 0 || lost >= packets {
		t.Errorf("%d of %d were lost, want some", lost, packets)
	}
	if got := b.drops("spoofed-source") - before; got != packets {
		t.Errorf("%d were counted as dropped, want all %d", got, packets)
	}
	b.must(l.Close())
	// Who comes next has lost nothing yet.
	l, err = b.Tables.Listen(maps.AllEvents)
	b.must(err)
	if lost, err := l.Lost(); err != nil || lost != 0 {
		t.Errorf("a new listener has lost %d (%v)", lost, err)
	}
	b.must(l.Close())
}

// A listener that was killed leaves its ring behind; the next agent takes it away.
func eventsSilenced(t *testing.T, b *bench) {
	before, err := b.Tables.LostEvents()
	b.must(err)
	_, err = b.Tables.Listen(maps.AllEvents) // never closed
	b.must(err)
	b.must(b.Tables.Silence())
	b.must(b.Tables.Silence()) // again
	b.asPod(tcp(podA+":4000", podB+":80", flagSYN))
	if lost, err := b.Tables.LostEvents(); err != nil || lost != before {
		t.Errorf("%d events were raised and lost (%v), want none", lost-before, err)
	}
}

// The programs for IPv6 raise the same struct.
func eventIPv6(t *testing.T, b *bench) {
	next := b.events(maps.AllEvents)
	src, dst := netip.MustParseAddr("fd00::99"), netip.MustParseAddr("fd00::2")
	if verdict, _ := b.run(b.programs[maps.IPv6].FromPod, frame6(src, dst, 1000, 80)); verdict != shot {
		t.Fatalf("verdict %d, want a drop", int32(verdict))
	}
	got := next()
	got.Time = 0
	want := maps.Event{
		Kind: maps.EventDrop, Reason: 2, Hook: maps.HookFromPod, Length: 14 + 40 + 8,
		Tuple: maps.Tuple{Src: netip.AddrPortFrom(src, 1000), Dst: netip.AddrPortFrom(dst, 80), Proto: maps.UDP},
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// frame6 is an empty datagram.
func frame6(src, dst netip.Addr, sport, dport uint16) []byte {
	f := []byte{0x02, 0xee, 0xee, 0xee, 0xee, 0xee, 0x02, 0x0b, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, protoUDP, 64}
	f = append(f, src.AsSlice()...)
	f = append(f, dst.AsSlice()...)
	return append(f, byte(sport>>8), byte(sport), byte(dport>>8), byte(dport), 0, 8, 0, 0)
}

// BenchmarkEvents measures what events cost a packet, by the kernel's clock: one that follows its flow and one
// that is dropped; with nobody listening, with somebody who wants other kinds, and with somebody who
// wants it. What is wanted is run in portions that the budget of a window covers.
func BenchmarkEvents(b *testing.B) {
	for name, p := range map[string]packet{"follow": tcp(podA+":1000", podB+":80", flagACK), "drop": udp("10.244.1.99:1000", podB+":80")} {
		for listener, kinds := range map[string]maps.EventKinds{"nobody": 0, "others": maps.Kinds(maps.EventEnd), "wanted": maps.AllEvents} {
			b.Run(name+"/"+listener, func(b *testing.B) {
				bench := load(b)
				bench.asPod(tcp(podA+":1000", podB+":80", flagSYN))
				if kinds != 0 {
					bench.drain(kinds)
				}
				window := time.NewTicker(150 * time.Millisecond)
				defer window.Stop()
				var best time.Duration
				for b.Loop() {
					<-window.C
					_, took, err := bench.objs.FromPod.Benchmark(p.frame(), 1000, func() {})
					bench.must(err)
					if best == 0 || took < best {
						best = took
					}
				}
				b.ReportMetric(float64(best.Nanoseconds()), "ns/packet")
			})
		}
	}
}

// drain listens and throws away what comes.
func (b *bench) drain(kinds maps.EventKinds) {
	b.t.Helper()
	l, err := b.Tables.Listen(kinds)
	b.must(err)
	b.t.Cleanup(func() { b.must(l.Close()) })
	go func() {
		var e maps.Event
		for l.Read(&e) == nil {
		}
	}()
}

// Drops are counted where they happen, and tables know how full they are.
func TestCountersAndFill(t *testing.T) {
	b := load(t)
	b.service("10.96.0.22:80", maps.TCP, 0, 0)
	b.run(b.objs.FromPod, udp("10.244.1.99:1000", podB+":80").frame())
	b.asPod(tcp(podA+":1000", "10.96.0.22:80", flagSYN))
	b.run(b.objs.FromExt, tcp(far+":1000", "10.96.0.22:80", flagSYN).frame())
	counts, err := b.Tables.DropCounts()
	b.must(err)
	want := []maps.DropCount{
		{Reason: 2, Hook: maps.HookFromPod, Count: 1}, {Reason: 9, Hook: maps.HookFromPod, Count: 1}, {Reason: 9, Hook: maps.HookFromExt, Count: 1},
	}
	if !slices.Equal(counts, want) {
		t.Errorf("counted %+v, want %+v", counts, want)
	}
	for i := range 3000 { // more than a batch
		b.service(netip.AddrPortFrom(netip.MustParseAddr("10.96.1.1"), uint16(i+1)).String(), maps.TCP, 0, 0)
	}
	fills, err := b.Tables.Fills()
	b.must(err)
	got := map[string]int{}
	for _, f := range fills {
		got[f.Table] = f.Entries
		if f.Bytes == 0 && f.Entries > 0 {
			t.Errorf("table %s takes no memory", f.Table)
		}
	}
	if got["services"] != 3001 || got["endpoints"] != 2 || got["ct"] != 0 || got["slots"] != -1 {
		t.Errorf("filled %v", got)
	}
}
