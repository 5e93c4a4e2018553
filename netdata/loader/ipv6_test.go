package loader

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/maps"
)

// The programs are one source for both families. What is looked at here is where they
// differ: headers, checksums, ICMPv6, and the maps they find.

// load6 is a bench whose programs are those for IPv6.
func load6(t testing.TB) *bench {
	t.Helper()
	b := load(t)
	b.objs = b.programs[maps.IPv6]
	return b
}

func at6(addr, port string) string { return "[" + addr + "]:" + port }

func TestIPv6PodToPod(t *testing.T) {
	b := load6(t)
	for _, p := range []packet{tcp(at6(podA6, "1000"), at6(podB6, "80"), flagSYN), udp(at6(podA6, "1000"), at6(podB6, "80"))} {
		verdict, out := b.asPod(p)
		got := want(t, verdict, redirect, out, at6(podA6, "1000"), at6(podB6, "80"))
		if got.ttl != 63 || got.dstMAC != [6]byte{2, 11, 0, 0, 0, 1} {
			t.Errorf("hop limit %d and MAC %x: want one hop less and pod B's address", got.ttl, got.dstMAC)
		}
	}
}

// Every program sees the packets of both families and must leave the other's alone.
func TestFamiliesLeaveEachOtherAlone(t *testing.T) {
	b := load(t)
	four, six := b.programs[maps.IPv4], b.programs[maps.IPv6]
	for i, prog := range []*ebpf.Program{four.FromPod, four.ToPod, four.FromExt, four.ToExt} {
		if verdict, _ := b.run(prog, tcp(at6(podA6, "1000"), at6(podB6, "80"), flagSYN).frame()); verdict != pass {
			t.Errorf("program %d of IPv4: verdict %d for an IPv6 packet", i, int32(verdict))
		}
	}
	for i, prog := range []*ebpf.Program{six.FromPod, six.ToPod, six.FromExt, six.ToExt} {
		if verdict, _ := b.run(prog, tcp(podA+":1000", podB+":80", flagSYN).frame()); verdict != pass {
			t.Errorf("program %d of IPv6: verdict %d for an IPv4 packet", i, int32(verdict))
		}
	}
}

func TestIPv6SpoofedSourceIsDropped(t *testing.T) {
	b := load6(t)
	verdict, _ := b.run(b.objs.FromPod, udp("[fd00:1::99]:1000", at6(podB6, "80")).frame())
	if verdict != shot || b.drops("spoofed-source") != 1 {
		t.Errorf("verdict %d, counter %d", verdict, b.drops("spoofed-source"))
	}
}

// A pod's stack announces itself to a link on which nobody listens. That is no attack.
func TestLinkScopeMulticastIsDroppedQuietly(t *testing.T) {
	b := load6(t)
	report := packet{src: ap("[::]:0"), dst: ap("[ff02::16]:0"), proto: protoICMPv6, icmpType: 143}
	if verdict, _ := b.run(b.objs.FromPod, report.frame()); verdict != shot {
		t.Errorf("verdict %d", int32(verdict))
	}
	igmp := packet{src: ap(podA + ":0"), dst: ap("224.0.0.22:0"), proto: 2, payload: make([]byte, 16)}
	if verdict, _ := b.run(b.programs[maps.IPv4].FromPod, igmp.frame()); verdict != shot {
		t.Errorf("verdict %d", int32(verdict))
	}
	if b.drops("link-scope") != 2 || b.drops("spoofed-source") != 0 {
		d, _ := b.Tables.Drops()
		t.Errorf("counters %v, want two of link-scope", d)
	}
}

func TestIPv6ServiceTranslationAndAnswer(t *testing.T) {
	for proto, p := range map[maps.Protocol]packet{
		maps.TCP: tcp(at6(podA6, "1000"), "[fd00:96::20]:80", flagSYN),
		maps.UDP: udp(at6(podA6, "1000"), "[fd00:96::20]:80"),
	} {
		t.Run(proto.String(), func(t *testing.T) {
			b := load6(t)
			b.service("[fd00:96::20]:80", proto, 0, 0, at6(podB6, "8080"))
			verdict, out := b.asPod(p)
			want(t, verdict, redirect, out, at6(podA6, "1000"), at6(podB6, "8080"))
			answer := p
			answer.src, answer.dst, answer.flags = ap(at6(podB6, "8080")), ap(at6(podA6, "1000")), flagSYN|flagACK
			verdict, out = b.asPod(answer)
			want(t, verdict, redirect, out, "[fd00:96::20]:80", at6(podA6, "1000"))
		})
	}
}

func TestIPv6RefusalTCP(t *testing.T) {
	b := load6(t)
	b.must(b.Tables.SetServicesSynced())
	verdict, out := b.asPod(tcp(at6(podA6, "1000"), "[fd00:96::23]:80", flagSYN))
	got := want(t, verdict, redirect, out, "[fd00:96::23]:80", at6(podA6, "1000"))
	if got.flags != flagRST|flagACK || got.ack != 1001 {
		t.Errorf("flags %x ack %d, want RST+ACK 1001", got.flags, got.ack)
	}
}

func TestIPv6RefusalUDP(t *testing.T) {
	b := load6(t)
	b.must(b.Tables.SetServicesSynced())
	sent := udp(at6(podA6, "1000"), "[fd00:96::23]:80")
	verdict, out := b.asPod(sent)
	got := want(t, verdict, redirect, out, "[fd00:96::23]:0", at6(podA6, "0"))
	if got.proto != protoICMPv6 || got.icmpType != 1 || got.icmpCode != 4 {
		t.Fatalf("protocol %d type %d code %d, want ICMPv6 port unreachable", got.proto, got.icmpType, got.icmpCode)
	}
	if !slices.Equal(got.payload, sent.ip6()[:48]) {
		t.Errorf("quotes %x, want the datagram's headers %x", got.payload, sent.ip6()[:48])
	}
}

func TestIPv6ClusterDNSIsLocal(t *testing.T) {
	b := load6(t)
	b.must(b.Tables.SetServicesSynced())
	if verdict, _ := b.asPod(udp(at6(podA6, "1000"), "[fd00:96::a]:53")); verdict != pass {
		t.Errorf("verdict %d, want the stack", int32(verdict))
	}
}

func TestIPv6Hairpin(t *testing.T) {
	b := load6(t)
	b.service("[fd00:96::20]:80", maps.TCP, 0, 0, at6(podA6, "8080"))
	verdict, out := b.asPod(tcp(at6(podA6, "1000"), "[fd00:96::20]:80", flagSYN))
	want(t, verdict, redirect, out, at6(Hairpin6.String(), "1000"), at6(podA6, "8080"))
	verdict, out = b.asPod(tcp(at6(podA6, "8080"), at6(Hairpin6.String(), "1000"), flagSYN|flagACK))
	want(t, verdict, redirect, out, "[fd00:96::20]:80", at6(podA6, "1000"))
}

func TestIPv6NodePort(t *testing.T) {
	b := load6(t)
	b.service(at6(node6, "30080"), maps.TCP, 0, 0, at6(podB6, "8080"))
	verdict, out := b.run(b.objs.FromExt, tcp(at6(far6, "5000"), at6(node6, "30080"), flagSYN).frame())
	want(t, verdict, redirect, out, at6(far6, "5000"), at6(podB6, "8080"))
	answer := tcp(at6(podB6, "8080"), at6(far6, "5000"), flagSYN|flagACK)
	verdict, out = b.asPod(answer)
	want(t, verdict, pass, out, at6(podB6, "8080"), at6(far6, "5000"))
	verdict, out = b.run(b.objs.ToExt, answer.frame())
	want(t, verdict, pass, out, at6(node6, "30080"), at6(far6, "5000"))
}

func TestIPv6Masquerade(t *testing.T) {
	b := load6(t)
	for _, p := range []packet{tcp(at6(podA6, "1000"), at6(far6, "80"), flagSYN), udp(at6(podA6, "1000"), at6(far6, "80"))} {
		if verdict, _ := b.asPod(p); verdict != pass {
			t.Fatalf("verdict %d, want the stack", int32(verdict))
		}
		verdict, out := b.run(b.objs.ToExt, p.frame())
		sent := want(t, verdict, pass, out, "", at6(far6, "80"))
		if sent.src.Addr() != netip.MustParseAddr(node6) || sent.src.Port() < SNATPortMin {
			t.Errorf("leaves as %s, want the node's address and a port from %d on", sent.src, SNATPortMin)
		}
		answer := p
		answer.src, answer.dst, answer.flags = ap(at6(far6, "80")), sent.src, flagSYN|flagACK
		verdict, out = b.run(b.objs.FromExt, answer.frame())
		want(t, verdict, redirect, out, at6(far6, "80"), at6(podA6, "1000"))
	}
}

func TestIPv6MasqueradedPing(t *testing.T) {
	b := load6(t)
	p := packet{src: ap(at6(podA6, "0")), dst: ap(at6(far6, "0")), proto: protoICMPv6, icmpType: 128, echoID: 7, payload: []byte("ping")}
	b.asPod(p)
	verdict, out := b.run(b.objs.ToExt, p.frame())
	sent := want(t, verdict, pass, out, at6(node6, "0"), at6(far6, "0"))
	answer := p.reply()
	answer.icmpType, answer.dst, answer.echoID = 129, ap(at6(node6, "0")), sent.echoID
	verdict, out = b.run(b.objs.FromExt, answer.frame())
	got := want(t, verdict, redirect, out, at6(far6, "0"), at6(podA6, "0"))
	if got.echoID != 7 {
		t.Errorf("identifier %d came back, want 7", got.echoID)
	}
}

// IPv6 routers do not fragment: without this error, a pod's large packets vanish for ever.
func TestPacketTooBigFindsItsPod(t *testing.T) {
	b := load6(t)
	p := tcp(at6(podA6, "1000"), at6(far6, "80"), flagSYN)
	b.asPod(p)
	_, out := b.run(b.objs.ToExt, p.frame())
	e := packet{src: ap("[2001:db8::1]:0"), dst: ap(at6(node6, "0")), proto: protoICMPv6, icmpType: 2, payload: out[14:]}
	verdict, out := b.run(b.objs.FromExt, e.frame())
	got := want(t, verdict, redirect, out, "[2001:db8::1]:0", at6(podA6, "0"))
	quoted := parseIP6(t, got.payload, false)
	if quoted.src != p.src || quoted.dst != p.dst {
		t.Errorf("quotes %s->%s, want %s->%s", quoted.src, quoted.dst, p.src, p.dst)
	}
}

func TestIPv6ErrorOfABackend(t *testing.T) {
	b := load6(t)
	b.service("[fd00:96::20]:80", maps.UDP, 0, 0, at6(podB6, "8080"))
	_, out := b.asPod(udp(at6(podA6, "1000"), "[fd00:96::20]:80"))
	e := packet{src: ap(at6(podB6, "0")), dst: ap(at6(podA6, "0")), proto: protoICMPv6, icmpType: 1, icmpCode: 4, payload: out[14:]}
	verdict, out := b.asPod(e)
	got := want(t, verdict, redirect, out, "[fd00:96::20]:0", at6(podA6, "0"))
	quoted := parseIP6(t, got.payload, false)
	if quoted.src != ap(at6(podA6, "1000")) || quoted.dst != ap("[fd00:96::20]:80") {
		t.Errorf("quotes %s->%s, want what the client sent", quoted.src, quoted.dst)
	}
}
