package loader

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Verdicts of a tc program.
const (
	pass     = ^uint32(0) // TC_ACT_UNSPEC
	shot     = 2
	redirect = 7
)

// bench is a loaded dataplane with two pods, whose programs are run on
// packets without any interface.
type bench struct {
	*Dataplane
	t    testing.TB
	objs *programs // of the family under test
}

const (
	podA = "10.244.1.2"
	podB = "10.244.1.3"
	node = "192.168.50.1"
	far  = "192.0.2.7"

	podA6 = "fd00:1::2"
	podB6 = "fd00:1::3"
	node6 = "fd00:50::1"
	far6  = "2001:db8::7"
)

// mountBPF mounts a bpffs for the time of the test.
func mountBPF(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load eBPF programs")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("cannot mount a bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// load returns the programs with empty tables and two pods.
func load(t testing.TB) *bench {
	t.Helper()
	d := fresh(t)
	b := &bench{d, t, d.programs[maps.IPv4]}
	b.populate()
	return b
}

// populate makes pods A and B of both families.
func (b *bench) populate() {
	b.t.Helper()
	// Test runs happen on interface 1, so pod A lives there.
	for i, addrs := range [][]string{{podA, podA6}, {podB, podB6}} {
		for _, a := range addrs {
			b.must(b.Tables.PutEndpoint(maps.Endpoint{
				Addr: netip.MustParseAddr(a), Ifindex: 1 + i, MAC: net.HardwareAddr{2, 11, 0, 0, 0, byte(i)},
			}))
		}
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) service(addr string, proto maps.Protocol, base, affinity uint32, backends ...string) {
	b.t.Helper()
	var slots []netip.AddrPort
	for _, s := range backends {
		slots = append(slots, ap(s))
	}
	b.must(b.Tables.WriteSlots(base, slots))
	b.row(maps.Frontend{Addr: ap(addr), Proto: proto}, maps.ServiceRow{ID: base + 1, Base: base, Count: uint16(len(slots)), Affinity: affinity})
}

// row writes a service row, be it new or not.
func (b *bench) row(f maps.Frontend, r maps.ServiceRow) {
	b.t.Helper()
	err := b.Tables.PutService(f, r, true)
	if errors.Is(err, maps.ErrTaken) {
		err = b.Tables.PutService(f, r, false)
	}
	b.must(err)
}

// run runs a program on a frame. One that comes in from outside is made one for this machine: the kernel runs tests as if they
// came from the loopback device, which has no hardware address but zeros. Frames to groups stay as they are.
func (b *bench) run(prog *ebpf.Program, frame []byte) (uint32, []byte) {
	b.t.Helper()
	if prog == b.objs.FromExt && frame[0]&1 == 0 {
		frame = slices.Concat(make([]byte, 6), frame[6:])
	}
	return b.runAsIs(prog, frame)
}

func (b *bench) runAsIs(prog *ebpf.Program, frame []byte) (uint32, []byte) {
	b.t.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1}
	verdict, err := prog.Run(&opts)
	if err != nil {
		b.t.Fatalf("run program: %v", err)
	}
	return verdict, opts.DataOut
}

// asPod has pod A or, after a swap of the interface's row, pod B send.
func (b *bench) asPod(p packet) (uint32, []byte) {
	b.t.Helper()
	a := netip.MustParseAddr(podA)
	if p.src.Addr().Is6() {
		a = netip.MustParseAddr(podA6)
	}
	if p.src.Addr() != a {
		eps, err := b.Tables.Endpoints()
		b.must(err)
		for _, e := range eps {
			if e.Addr == p.src.Addr() {
				e.Ifindex = 1
				b.must(b.Tables.PutEndpoint(e))
				defer func() {
					e.Ifindex = 2
					b.must(b.Tables.PutEndpoint(e))
					b.must(b.Tables.PutEndpoint(maps.Endpoint{Addr: a, Ifindex: 1, MAC: net.HardwareAddr{2, 11, 0, 0, 0, 0}}))
				}()
			}
		}
	}
	return b.run(b.objs.FromPod, p.frame())
}

func (b *bench) drops(reason string) uint64 {
	b.t.Helper()
	d, err := b.Tables.Drops()
	b.must(err)
	return d[reason]
}

func want(t *testing.T, verdict, wantVerdict uint32, frame []byte, src, dst string) packet {
	t.Helper()
	if verdict != wantVerdict {
		t.Fatalf("verdict %d, want %d", int32(verdict), int32(wantVerdict))
	}
	p := parseFrame(t, frame)
	if src != "" && p.src != ap(src) {
		t.Errorf("source is %s, want %s", p.src, src)
	}
	if dst != "" && p.dst != ap(dst) {
		t.Errorf("destination is %s, want %s", p.dst, dst)
	}
	return p
}

func TestPodToPod(t *testing.T) {
	b := load(t)
	for _, p := range []packet{tcp(podA+":1000", podB+":80", flagSYN), udp(podA+":1000", podB+":80")} {
		verdict, out := b.asPod(p)
		got := want(t, verdict, redirect, out, podA+":1000", podB+":80")
		if got.ttl != 63 || got.dstMAC != [6]byte{2, 11, 0, 0, 0, 1} {
			t.Errorf("TTL %d and MAC %x: want one hop less and pod B's address", got.ttl, got.dstMAC)
		}
	}
}

// Pods whose addresses end in the same bits share a place; who comes second has none and is found all the same.
func TestPodsThatShareAPlace(t *testing.T) {
	for _, same := range [][]string{{"10.244.1.3", "10.244.17.3", "10.244.33.3"}, {"fd00:1::3", "fd00:2::3", "fd00:3::1003"}} {
		t.Run(same[0], func(t *testing.T) {
			b := load(t)
			sender := podA
			if strings.Contains(same[0], "::") {
				sender, b.objs = podA6, b.programs[maps.IPv6]
			}
			put := func(i int) {
				b.must(b.Tables.PutEndpoint(maps.Endpoint{
					Addr: netip.MustParseAddr(same[i]), Ifindex: 10 + i, MAC: net.HardwareAddr{2, 11, 0, 0, 1, byte(i)},
				}))
			}
			reached := func(there ...bool) {
				t.Helper()
				for i, is := range there {
					verdict, out := b.run(b.objs.FromPod, udp(netip.AddrPortFrom(netip.MustParseAddr(sender), 1000).String(),
						netip.AddrPortFrom(netip.MustParseAddr(same[i]), 80).String()).frame())
					switch {
					case !is && verdict == redirect:
						t.Errorf("%s is gone and gets packets", same[i])
					case is && (verdict != redirect || parseFrame(t, out).dstMAC != [6]byte{2, 11, 0, 0, 1, byte(i)}):
						t.Errorf("%s: verdict %d, MAC %x", same[i], verdict, parseFrame(t, out).dstMAC)
					}
				}
			}
			put(0)
			put(1)
			reached(true, true, false)
			b.must(b.Tables.DeleteEndpoint(netip.MustParseAddr(same[0])))
			reached(false, true, false)
			put(2) // takes the place that has become free
			reached(false, true, true)
			put(0)
			reached(true, true, true)
			b.must(b.Tables.DeleteEndpoint(netip.MustParseAddr(same[2])))
			reached(true, true, false)
		})
	}
}

func TestSpoofedSourceIsDropped(t *testing.T) {
	b := load(t)
	verdict, _ := b.run(b.objs.FromPod, udp("10.244.1.99:1000", podB+":80").frame())
	if verdict != shot || b.drops("spoofed-source") != 1 {
		t.Errorf("verdict %d, counter %d", verdict, b.drops("spoofed-source"))
	}
}

func TestMalformedIsDropped(t *testing.T) {
	b := load(t)
	short := tcp(podA+":1000", podB+":80", flagSYN).frame()[:40]
	bad := tcp(podA+":1000", podB+":80", flagSYN)
	bad.badIPLength = true
	for _, frame := range [][]byte{short, bad.frame()} {
		if verdict, _ := b.run(b.objs.FromPod, frame); verdict != shot {
			t.Errorf("verdict %d, want drop", verdict)
		}
	}
	if n := b.drops("malformed"); n != 2 {
		t.Errorf("malformed counter is %d, want 2", n)
	}
}

// A packet that is shorter than it says can be used by nobody: it must not take up room.
func TestShortPacketsLeaveNoRows(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":8080")
	for _, to := range []string{podB + ":80", "10.96.0.20:80"} {
		frame := tcp(podA+":1000", to, flagSYN).frame()
		if verdict, _ := b.run(b.objs.FromPod, frame[:len(frame)-8]); verdict != shot {
			t.Errorf("to %s: verdict %d, want drop", to, int32(verdict))
		}
	}
	if rows, n := b.flowRows(), b.drops("malformed"); rows != 0 || n != 2 {
		t.Errorf("%d rows were noted, and %d drops counted as malformed; want 0 and 2", rows, n)
	}
}

// Whatever external address somebody gives his Service, a pod's traffic is not his.
func TestAPodsAddressIsNoService(t *testing.T) {
	b := load(t)
	b.service(podB+":80", maps.TCP, 0, 0, podA+":8080")
	verdict, out := b.asPod(tcp(podA+":1000", podB+":80", flagSYN))
	want(t, verdict, redirect, out, podA+":1000", podB+":80")
	verdict, out = b.asPod(tcp(podA+":1000", farPod+":80", flagSYN))
	want(t, verdict, pass, out, podA+":1000", farPod+":80")
}

func TestServiceTranslationAndAnswer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		packet packet
		proto  maps.Protocol
	}{
		{"TCP", tcp(podA+":1000", "10.96.0.20:80", flagSYN), maps.TCP},
		{"UDP", udp(podA+":1000", "10.96.0.20:80"), maps.UDP},
		{"IP options", func() packet {
			p := tcp(podA+":1000", "10.96.0.20:80", flagSYN)
			p.ipOptions = []byte{1, 1, 1, 0}
			return p
		}(), maps.TCP},
		{"UDP without checksum", func() packet {
			p := udp(podA+":1000", "10.96.0.20:80")
			p.noUDPChecksum = true
			return p
		}(), maps.UDP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := load(t)
			b.service("10.96.0.20:80", tc.proto, 0, 0, podB+":8080")
			verdict, out := b.asPod(tc.packet)
			want(t, verdict, redirect, out, podA+":1000", podB+":8080")

			answer := tc.packet
			answer.src, answer.dst, answer.flags = ap(podB+":8080"), ap(podA+":1000"), flagSYN|flagACK
			verdict, out = b.asPod(answer)
			want(t, verdict, redirect, out, "10.96.0.20:80", podA+":1000")
		})
	}
}

func TestRefusalTCP(t *testing.T) {
	b := load(t)
	b.service("10.96.0.22:80", maps.TCP, 0, 0)
	b.must(b.Tables.SetServicesSynced())
	for _, addr := range []string{"10.96.0.22:80", "10.96.0.23:80"} {
		verdict, out := b.asPod(tcp(podA+":1000", addr, flagSYN))
		got := want(t, verdict, redirect, out, addr, podA+":1000")
		if got.flags != flagRST|flagACK || got.seq != 0 || got.ack != 1001 {
			t.Errorf("flags %x seq %d ack %d, want RST+ACK 0 1001", got.flags, got.seq, got.ack)
		}
	}
	verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.22:80", flagACK))
	got := want(t, verdict, redirect, out, "10.96.0.22:80", podA+":1000")
	if got.flags != flagRST || got.seq != 2000 {
		t.Errorf("mid-stream: flags %x seq %d, want RST 2000", got.flags, got.seq)
	}
	if b.drops("refused-no-endpoint") != 1 || b.drops("refused-no-service") != 1 || b.drops("refused-no-flow") != 1 {
		d, _ := b.Tables.Drops()
		t.Errorf("counters %v, want one of each refusal", d)
	}
}

func TestRefusalUDP(t *testing.T) {
	b := load(t)
	b.must(b.Tables.SetServicesSynced())
	sent := udp(podA+":1000", "10.96.0.23:80")
	verdict, out := b.asPod(sent)
	got := want(t, verdict, redirect, out, "10.96.0.23:0", podA+":0")
	if got.proto != protoICMP || got.icmpType != 3 || got.icmpCode != 3 {
		t.Fatalf("protocol %d type %d code %d, want ICMP port unreachable", got.proto, got.icmpType, got.icmpCode)
	}
	if !slices.Equal(got.payload, sent.ip()[:28]) {
		t.Errorf("quotes %x, want the datagram's headers %x", got.payload, sent.ip()[:28])
	}
}

func TestUnknownServiceBeforeFirstSyncIsDropped(t *testing.T) {
	b := load(t)
	verdict, _ := b.asPod(tcp(podA+":1000", "10.96.0.23:80", flagSYN))
	if verdict != shot || b.drops("services-not-synced") != 1 {
		t.Errorf("verdict %d, counter %d", verdict, b.drops("services-not-synced"))
	}
}

func TestClusterDNSIsLocal(t *testing.T) {
	b := load(t)
	b.must(b.Tables.SetServicesSynced())
	if verdict, _ := b.asPod(udp(podA+":1000", "10.96.0.10:53")); verdict != pass {
		t.Errorf("verdict %d, want the stack", int32(verdict))
	}
}

func TestHairpin(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podA+":8080")
	verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	want(t, verdict, redirect, out, Hairpin4.String()+":1000", podA+":8080")
	verdict, out = b.asPod(tcp(podA+":8080", Hairpin4.String()+":1000", flagSYN|flagACK))
	want(t, verdict, redirect, out, "10.96.0.20:80", podA+":1000")
}

// A fragment whose first one was not seen.
func TestLateFragments(t *testing.T) {
	b := load(t)
	p := udp(podA+":1000", "10.96.0.20:80")
	p.fragment = 0x2001
	if verdict, _ := b.asPod(p); verdict != shot || b.drops("fragment") != 1 {
		t.Errorf("to a service: verdict %d, counter %d", verdict, b.drops("fragment"))
	}
	p = udp(podA+":1000", podB+":80")
	p.fragment = 0x2001
	if verdict, _ := b.asPod(p); verdict != redirect {
		t.Errorf("to a pod: verdict %d, want delivery", verdict)
	}
	p = udp(podA+":1000", far+":80")
	p.fragment = 0x2001
	if verdict, _ := b.run(b.objs.ToExt, p.frame()); verdict != shot || b.drops("fragment") != 2 {
		t.Errorf("to the outside: verdict %d, counter %d", verdict, b.drops("fragment"))
	}
}

// Two services that share a backend and a client port that it uses for both:
// answers must not be mixed up.
func TestCollidingTranslationsGetDifferentPorts(t *testing.T) {
	b := load(t)
	for i, vip := range []string{"10.96.0.20:80", "10.96.0.21:80"} {
		b.service(vip, maps.UDP, uint32(i), 0, podB+":8080")
	}
	_, first := b.asPod(udp(podA+":1000", "10.96.0.20:80"))
	verdict, second := b.asPod(udp(podA+":1000", "10.96.0.21:80"))
	got := want(t, verdict, redirect, second, "", podB+":8080")
	if parseFrame(t, first).src == got.src {
		t.Fatalf("both flows reach the backend from %s", got.src)
	}
	answer := udp(podB+":8080", got.src.String())
	verdict, out := b.asPod(answer)
	want(t, verdict, redirect, out, "10.96.0.21:80", podA+":1000")
}

// The server may still remember a connection that has ended, and take a new one from the same port for a part
// of it: their sequence numbers have nothing to do with each other if the client knows it by two addresses.
func TestPortsOfAnEndedConnectionAreLeftAlone(t *testing.T) {
	b := load(t)
	for i, vip := range []string{"10.96.0.20:80", "10.96.0.21:80"} {
		b.service(vip, maps.TCP, uint32(i), 0, podB+":8080")
	}
	over := func(to string) netip.AddrPort {
		_, out := b.asPod(tcp(podA+":1000", to, flagSYN))
		from := parseFrame(t, out).src
		b.asPod(tcp(podB+":8080", from.String(), flagSYN|flagACK))
		b.asPod(tcp(podA+":1000", to, flagFIN|flagACK))
		b.asPod(tcp(podB+":8080", from.String(), flagFIN|flagACK))
		return from
	}
	seen := map[netip.AddrPort]string{}
	for _, to := range []string{podB + ":8080", "10.96.0.20:80", "10.96.0.21:80"} {
		from := over(to)
		if other, taken := seen[from]; taken {
			t.Errorf("the connections to %s and to %s both came from %s", other, to, from)
		}
		seen[from] = to
		if again := over(to); again != from && to == podB+":8080" {
			t.Errorf("the second connection to %s came from %s, the first from %s", to, again, from)
		}
	}
}

func TestSessionAffinity(t *testing.T) {
	b := load(t)
	backends := []string{"10.244.1.11:80", "10.244.1.12:80", "10.244.1.13:80", "10.244.1.14:80"}
	b.service("10.96.0.20:80", maps.TCP, 0, 60, backends...)
	b.service("10.96.0.21:80", maps.TCP, 8, 0, backends...)
	seen := map[string]map[netip.AddrPort]bool{}
	for _, vip := range []string{"10.96.0.20:80", "10.96.0.21:80"} {
		seen[vip] = map[netip.AddrPort]bool{}
		for port := range 64 {
			p := tcp(podA+":1", vip, flagSYN)
			p.src = netip.AddrPortFrom(p.src.Addr(), uint16(1000+port))
			_, out := b.asPod(p)
			seen[vip][parseFrame(t, out).dst] = true
		}
	}
	if n := len(seen["10.96.0.20:80"]); n != 1 {
		t.Errorf("with affinity the client met %d backends", n)
	}
	if n := len(seen["10.96.0.21:80"]); n != len(backends) {
		t.Errorf("without affinity the client met %d backends of %d", n, len(backends))
	}
}

func TestNodePort(t *testing.T) {
	b := load(t)
	b.service(node+":30080", maps.TCP, 0, 0, podB+":8080")
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", node+":30080", flagSYN).frame())
	want(t, verdict, redirect, out, far+":5000", podB+":8080")
	// The answer leaves the pod as it is and is turned back at the uplink.
	answer := tcp(podB+":8080", far+":5000", flagSYN|flagACK)
	verdict, out = b.asPod(answer)
	want(t, verdict, pass, out, podB+":8080", far+":5000")
	verdict, out = b.run(b.objs.ToExt, answer.frame())
	want(t, verdict, pass, out, node+":30080", far+":5000")
}

func TestMasquerade(t *testing.T) {
	for _, p := range []packet{tcp(podA+":1000", far+":80", flagSYN), udp(podA+":1000", far+":80")} {
		b := load(t)
		verdict, _ := b.asPod(p)
		if verdict != pass {
			t.Fatalf("verdict %d, want the stack", int32(verdict))
		}
		verdict, out := b.run(b.objs.ToExt, p.frame())
		sent := want(t, verdict, pass, out, "", far+":80")
		if sent.src.Addr() != netip.MustParseAddr(node) || sent.src.Port() < SNATPortMin {
			t.Errorf("leaves as %s, want the node's address and a port from %d on", sent.src, SNATPortMin)
		}
		// The same flow keeps its port.
		_, again := b.run(b.objs.ToExt, p.frame())
		if got := parseFrame(t, again); got.src != sent.src {
			t.Errorf("second packet leaves as %s, the first as %s", got.src, sent.src)
		}
		answer := p
		answer.src, answer.dst, answer.flags = ap(far+":80"), sent.src, flagSYN|flagACK
		verdict, out = b.run(b.objs.FromExt, answer.frame())
		want(t, verdict, redirect, out, far+":80", podA+":1000")
	}
}

func TestMasqueradedPing(t *testing.T) {
	b := load(t)
	p := packet{src: ap(podA + ":0"), dst: ap(far + ":0"), proto: protoICMP, icmpType: 8, echoID: 7, payload: []byte("ping")}
	verdict, out := b.run(b.objs.ToExt, p.frame())
	sent := want(t, verdict, pass, out, node+":0", far+":0")
	answer := p.reply()
	answer.icmpType, answer.dst, answer.echoID = 0, ap(node+":0"), sent.echoID
	verdict, out = b.run(b.objs.FromExt, answer.frame())
	got := want(t, verdict, redirect, out, far+":0", podA+":0")
	if got.echoID != 7 {
		t.Errorf("identifier %d came back, want 7", got.echoID)
	}
}

// A router on the way says that a masqueraded packet is too big: path MTU
// discovery of the pod depends on it.
func TestICMPErrorFindsItsPod(t *testing.T) {
	b := load(t)
	p := tcp(podA+":1000", far+":80", flagSYN)
	b.asPod(p)
	_, out := b.run(b.objs.ToExt, p.frame())
	sent := out[14:]
	e := packet{src: ap("198.51.100.1:0"), dst: ap(node + ":0"), proto: protoICMP, icmpType: 3, icmpCode: 4, payload: sent[:28]}
	verdict, out := b.run(b.objs.FromExt, e.frame())
	got := want(t, verdict, redirect, out, "198.51.100.1:0", podA+":0")
	quoted := parseIP(t, got.payload, false)
	if quoted.src != p.src || quoted.dst != p.dst {
		t.Errorf("quotes %s->%s, want %s->%s", quoted.src, quoted.dst, p.src, p.dst)
	}
}

// A backend refuses a datagram: the client must see the service's address.
func TestICMPErrorOfABackend(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.UDP, 0, 0, podB+":8080")
	_, out := b.asPod(udp(podA+":1000", "10.96.0.20:80"))
	e := packet{src: ap(podB + ":0"), dst: ap(podA + ":0"), proto: protoICMP, icmpType: 3, icmpCode: 3, payload: out[14:42]}
	verdict, out := b.asPod(e)
	got := want(t, verdict, redirect, out, "10.96.0.20:0", podA+":0")
	quoted := parseIP(t, got.payload, false)
	if quoted.src != ap(podA+":1000") || quoted.dst != ap("10.96.0.20:80") {
		t.Errorf("quotes %s->%s, want what the client sent", quoted.src, quoted.dst)
	}
}

// A client that opens and closes quickly meets its old ports again, and must be
// balanced anew.
func TestReusedPortsAreBalancedAnew(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":8080")
	b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	b.asPod(tcp(podB+":8080", podA+":1000", flagSYN|flagACK))
	// The service gets another backend; the connection keeps its own...
	b.service("10.96.0.20:80", maps.TCP, 8, 0, podB+":9090")
	verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagACK))
	want(t, verdict, redirect, out, "", podB+":8080")
	// ...until both sides have closed.
	b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagFIN|flagACK))
	b.asPod(tcp(podB+":8080", podA+":1000", flagFIN|flagACK))
	verdict, out = b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	want(t, verdict, redirect, out, "", podB+":9090")
}
