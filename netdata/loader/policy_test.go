package loader

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
)

const (
	protoSCTP = 132
	// What the tests call pod B's subject, and the peers it has rules for.
	subjectB         = 7
	peerA, peerBlock = 3, 4
)

// isolate gives pods identities, and pod A and a block of the outside peer numbers.
func (b *bench) isolate(identities map[string]uint32) {
	b.t.Helper()
	for a, identity := range identities {
		connected, err := b.Tables.SetIdentity(netip.MustParseAddr(a), identity)
		if err != nil || !connected {
			b.t.Fatalf("pod %s: connected %v, %v", a, connected, err)
		}
	}
	b.must(b.Tables.PutPolicyPeers([]maps.PolicyPeer{
		{Prefix: netip.MustParsePrefix(podA + "/32"), Number: peerA},
		{Prefix: netip.MustParsePrefix("192.0.2.0/29"), Number: peerBlock},
	}))
}

func (b *bench) allow(rules ...maps.PolicyRule) {
	b.t.Helper()
	b.must(b.Tables.PutPolicyRules(rules))
}

func ingressRule(peer uint32, proto maps.Protocol, port uint16, bits uint8) maps.PolicyRule {
	return maps.PolicyRule{Subject: subjectB | maps.IsolatedIngress, Peer: peer, Proto: proto, Port: port, PortBits: bits}
}

func echo(src, dst string, request bool) packet {
	p := packet{src: ap(src + ":0"), dst: ap(dst + ":0"), proto: protoICMP, echoID: 9, payload: []byte("ping")}
	if request {
		p.icmpType = 8
	}
	return p
}

func sctpPacket(src, dst string) packet {
	p := packet{src: ap(src), dst: ap(dst), proto: protoSCTP, payload: make([]byte, 16)}
	binary.BigEndian.PutUint16(p.payload, p.src.Port())
	binary.BigEndian.PutUint16(p.payload[2:], p.dst.Port())
	return p
}

func fragmentOf(p packet) packet {
	p.fragment = 0x2001
	return p
}

func TestPolicyAtThePod(t *testing.T) {
	b := load(t)
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
	b.allow(
		ingressRule(peerA, maps.TCP, 80, 16), ingressRule(peerA, maps.UDP, 5000, 13), // 5000-5007
		ingressRule(peerA, maps.SCTP, 0, 0), ingressRule(peerBlock, 0, 0, 0), ingressRule(0, maps.TCP, 443, 16),
	)
	stranger, known := "198.51.100.9", "192.0.2.7" // known is in the block
	for what, tc := range map[string]struct {
		p       packet
		outside bool
		want    uint32
	}{
		"its port":                 {p: tcp(podA+":1000", podB+":80", flagSYN), want: redirect},
		"another port":             {p: tcp(podA+":1000", podB+":81", flagSYN), want: shot},
		"the port of everybody":    {p: tcp(podA+":1000", podB+":443", flagSYN), want: redirect},
		"another protocol":         {p: udp(podA+":1000", podB+":80"), want: shot},
		"the first of a range":     {p: udp(podA+":1000", podB+":5000"), want: redirect},
		"the last of a range":      {p: udp(podA+":1000", podB+":5007"), want: redirect},
		"behind the range":         {p: udp(podA+":1000", podB+":5008"), want: shot},
		"SCTP, any port":           {p: sctpPacket(podA+":1000", podB+":7"), want: redirect},
		"in the middle":            {p: tcp(podA+":1000", podB+":81", flagACK), want: shot},
		"a reset of nothing":       {p: tcp(podA+":1000", podB+":81", flagRST), want: shot},
		"ping":                     {p: echo(podA, podB, true), want: shot},
		"a fragment":               {p: fragmentOf(udp(podA+":1000", podB+":5000")), want: shot},
		"everything of the block":  {p: echo(known, podB, true), outside: true, want: redirect},
		"a fragment of the block":  {p: fragmentOf(udp(known+":1", podB+":9")), outside: true, want: redirect},
		"a stranger":               {p: tcp(stranger+":1000", podB+":80", flagSYN), outside: true, want: shot},
		"a stranger's 443":         {p: tcp(stranger+":1000", podB+":443", flagSYN), outside: true, want: redirect},
		"a stranger's fragment":    {p: fragmentOf(udp(stranger+":1", podB+":9")), outside: true, want: shot},
		"somebody as the node":     {p: tcp(node+":1000", podB+":80", flagSYN), outside: true, want: shot},
		"somebody as the gateway":  {p: tcp(Hairpin4.String()+":1000", podB+":80", flagSYN), outside: true, want: shot},
		"out, no policy for it":    {p: tcp(podA+":1000", stranger+":80", flagSYN), want: pass},
		"to somebody not isolated": {p: tcp(stranger+":1000", podA+":80", flagSYN), outside: true, want: redirect},
	} {
		prog := b.objs.FromPod
		if tc.outside {
			prog = b.objs.FromExt
		}
		before := b.drops("policy-ingress")
		if verdict, _ := b.run(prog, tc.p.frame()); verdict != tc.want {
			t.Errorf("%s: verdict %d, want %d", what, int32(verdict), int32(tc.want))
		}
		if after := b.drops("policy-ingress"); after-before != map[bool]uint64{true: 1}[tc.want == shot] {
			t.Errorf("%s: the counter went up by %d", what, after-before)
		}
	}
}

// What leaves the stack towards a pod is the node's own, or was forwarded from
// an interface that nobody watches.
func TestPolicyBeforeThePod(t *testing.T) {
	b := load(t)
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
	b.allow(ingressRule(peerBlock, maps.TCP, 80, 16))
	for what, tc := range map[string]struct {
		p       packet
		ingress uint32
		want    uint32
	}{
		"the node":                        {tcp(node+":1000", podB+":9", flagSYN), 0, pass},
		"the node by another address":     {tcp("203.0.113.1:1000", podB+":9", flagSYN), 0, pass},
		"the node pings":                  {echo(node, podB, true), 0, pass},
		"forwarded from nobody known":     {tcp("203.0.113.2:1000", podB+":80", flagSYN), 5, shot},
		"forwarded as if from the node":   {tcp(node+":1001", podB+":80", flagSYN), 5, shot},
		"forwarded ping":                  {echo("203.0.113.2", podB, true), 5, shot},
		"forwarded from whom may":         {tcp("192.0.2.7:1000", podB+":80", flagSYN), 5, pass},
		"what the pod's own port returns": {tcp("203.0.113.3:1000", podB+":80", flagRST), 1, pass},
	} {
		if verdict := b.runFrom(b.objs.ToPod, tc.p.frame(), tc.ingress); verdict != tc.want {
			t.Errorf("%s: verdict %d, want %d", what, int32(verdict), int32(tc.want))
		}
	}
	// What the node began under its other address survives a change of policy, and the answers too.
	b.must(b.Tables.NextPolicyRevision())
	if verdict, _ := b.asPod(tcp(podB+":9", "203.0.113.1:1000", flagSYN|flagACK)); verdict != pass {
		t.Errorf("answer to the node: verdict %d", int32(verdict))
	}
}

// runFrom runs a program on a packet that the node received at an interface.
func (b *bench) runFrom(prog *ebpf.Program, frame []byte, ifindex uint32) uint32 {
	b.t.Helper()
	var ctx [192]byte // struct __sk_buff
	binary.NativeEndian.PutUint32(ctx[36:], ifindex)
	verdict, err := prog.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx})
	if err != nil {
		b.t.Fatalf("run program: %v", err)
	}
	return verdict
}

func TestAnswersPassUnderAnyPolicy(t *testing.T) {
	for _, p := range []packet{tcp(podA+":1000", podB+":80", flagSYN), udp(podA+":1000", podB+":80"), echo(podA, podB, true), sctpPacket(podA+":1", podB+":2")} {
		b := load(t)
		closed := map[string]uint32{podA: maps.IsolatedIngress | 1, podB: maps.IsolatedEgress | 2}
		b.isolate(closed)
		if verdict, _ := b.asPod(p); verdict != redirect {
			t.Fatalf("protocol %d: verdict %d", p.proto, int32(verdict))
		}
		answer := p.reply()
		answer.flags, answer.icmpType = flagSYN|flagACK, 0
		if p.proto == protoSCTP {
			answer = sctpPacket(podB+":2", podA+":1")
		}
		if verdict, _ := b.asPod(answer); verdict != redirect {
			t.Errorf("protocol %d: the answer got verdict %d", p.proto, int32(verdict))
		}
		b.isolate(closed)
		if verdict, _ := b.asPod(tcp(podB+":80", podA+":1001", flagSYN)); verdict != shot || b.drops("policy-egress") != 1 {
			t.Errorf("protocol %d: a flow of its own got verdict %d, drops %d", p.proto, int32(verdict), b.drops("policy-egress"))
		}
	}
}

// An ICMP error passes if it is about a flow that was admitted.
func TestErrorsUnderPolicy(t *testing.T) {
	b := load(t)
	sent := tcp(podA+":1000", far+":80", flagSYN)
	b.asPod(sent)
	b.isolate(map[string]uint32{podA: maps.IsolatedIngress | 1})
	for what, tc := range map[string]struct {
		quoted packet
		want   uint32
	}{
		"about a flow":           {sent, redirect},
		"about nothing it began": {tcp(podA+":1000", far+":81", flagSYN), shot},
	} {
		e := packet{src: ap("198.51.100.1:0"), dst: ap(podA + ":0"), proto: protoICMP, icmpType: 3, icmpCode: 4, payload: tc.quoted.ip()[:28]}
		if verdict, _ := b.run(b.objs.FromExt, e.frame()); verdict != tc.want {
			t.Errorf("%s: verdict %d, want %d", what, int32(verdict), int32(tc.want))
		}
	}
}

func TestRevocationResetsBothEnds(t *testing.T) {
	for _, through := range []string{podB + ":80", "10.96.0.20:80"} {
		b := load(t)
		b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":80")
		rule := ingressRule(peerA, maps.TCP, 80, 16)
		b.allow(rule)
		b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
		open := func(flags byte) packet { return tcp(podA+":1000", through, flags) }
		verdict, out := b.asPod(open(flagSYN))
		want(t, verdict, redirect, out, podA+":1000", podB+":80")
		b.asPod(tcp(podB+":80", podA+":1000", flagSYN|flagACK))

		// A change that has nothing to do with it: the flow is judged again, and goes on.
		b.must(b.Tables.NextPolicyRevision())
		verdict, out = b.asPod(open(flagACK))
		if got := want(t, verdict, redirect, out, podA+":1000", podB+":80"); got.flags != flagACK {
			t.Fatalf("flags %x, want the segment as it was", got.flags)
		}

		b.must(b.Tables.DeletePolicyRules([]maps.PolicyRule{rule}))
		b.must(b.Tables.NextPolicyRevision())
		wire := sniff(t)
		data := open(flagACK)
		data.payload = []byte("must not arrive")
		verdict, out = b.asPod(data)
		got := want(t, verdict, redirect, out, podA+":1000", podB+":80")
		if got.flags != flagRST|flagACK || got.seq != 1000 || len(out) != 14+20+20 {
			t.Errorf("to the receiver: flags %x seq %d in %d bytes, want RST+ACK 1000 without data", got.flags, got.seq, len(out))
		}
		back := wire(ap(through), ap(podA+":1000"))
		if back.flags != flagRST || back.seq != 2000 {
			t.Errorf("to the sender: flags %x seq %d, want RST 2000", back.flags, back.seq)
		}
		if n := b.drops("refused-revoked"); n != 1 {
			t.Errorf("counter is %d", n)
		}
		// From then on there is no connection, and none can be opened.
		if verdict, _ := b.asPod(open(flagSYN)); verdict != shot || b.drops("policy-ingress") != 1 {
			t.Errorf("a new connection: verdict %d", int32(verdict))
		}
	}
}

// sniff returns a function that reads what the programs send out of interface 1 until it is
// a segment from src to dst.
func sniff(t *testing.T) func(src, dst netip.AddrPort) packet {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: 1, Protocol: all}); err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(int64(2 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return func(src, dst netip.AddrPort) packet {
		t.Helper()
		from, to := src.Addr().As4(), dst.Addr().As4()
		for buf := make([]byte, 1<<16); ; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				t.Fatalf("no segment from %s to %s left: %v", src, dst, err)
			}
			if n >= 54 && [4]byte(buf[26:30]) == from && [4]byte(buf[30:34]) == to {
				if p := parseFrame(t, buf[:n]); p.src == src && p.dst == dst {
					return p
				}
			}
		}
	}
}

// Datagrams have no end to be told of. Where the answering side may speak by itself, its answer begins a
// flow of its own.
func TestRevokedDatagrams(t *testing.T) {
	b := load(t)
	b.isolate(nil)
	ask, answer := udp(podA+":1000", podB+":53"), udp(podB+":53", podA+":1000")
	b.asPod(ask)
	b.asPod(answer)
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
	b.must(b.Tables.NextPolicyRevision())
	if verdict, _ := b.asPod(ask); verdict != shot {
		t.Errorf("question: verdict %d", int32(verdict))
	}
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
	if verdict, _ := b.asPod(answer); verdict != redirect {
		t.Errorf("what the other side sends by itself: verdict %d", int32(verdict))
	}
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | maps.IsolatedEgress | subjectB})
	b.must(b.Tables.NextPolicyRevision())
	if verdict, _ := b.asPod(answer); verdict != shot {
		t.Errorf("and when it may not: verdict %d", int32(verdict))
	}
}

func TestADeniedFlowLeavesNoTranslation(t *testing.T) {
	for _, p := range []packet{tcp(podA+":1000", "10.96.0.20:80", flagSYN), udp(podA+":1000", "10.96.0.20:80")} {
		b := load(t)
		b.service("10.96.0.20:80", maps.Protocol(p.proto), 0, 0, podB+":8080")
		b.isolate(map[string]uint32{podA: maps.IsolatedEgress | 1})
		if verdict, _ := b.asPod(p); verdict != shot || b.drops("policy-egress") != 1 {
			t.Errorf("protocol %d: verdict %d", p.proto, int32(verdict))
		}
		b.must(b.Tables.Translations(func(tr maps.Translation) { t.Errorf("left %s as %s", tr.From, tr.To) }))
		b.must(b.Tables.Flows(func(f maps.Flow) { t.Errorf("left %s", f.Tuple) }))
	}
}

// The node is reached under any policy.
func TestEgressToTheNode(t *testing.T) {
	b := load(t)
	b.isolate(map[string]uint32{podA: maps.IsolatedEgress | 1})
	for _, dst := range []string{node + ":6443", "10.96.0.10:53"} {
		if verdict, _ := b.asPod(tcp(podA+":1000", dst, flagSYN)); verdict != pass {
			t.Errorf("%s: verdict %d, want the stack", dst, int32(verdict))
		}
	}
	if verdict, _ := b.asPod(tcp(podA+":1000", podB+":80", flagSYN)); verdict != shot {
		t.Errorf("another pod: verdict %d", int32(verdict))
	}
}

func TestHairpinUnderPolicy(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podA+":8080")
	b.isolate(map[string]uint32{podA: maps.DenyAll})
	verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	want(t, verdict, redirect, out, Hairpin4.String()+":1000", podA+":8080")
	b.must(b.Tables.NextPolicyRevision())
	verdict, out = b.asPod(tcp(podA+":8080", Hairpin4.String()+":1000", flagSYN|flagACK))
	want(t, verdict, redirect, out, "10.96.0.20:80", podA+":1000")
	if verdict, _ := b.asPod(tcp(podA+":1000", Hairpin4.String()+":80", flagSYN)); verdict != shot {
		t.Errorf("to the gateway itself: verdict %d; it is nobody's address and would leave the node", int32(verdict))
	}
}
