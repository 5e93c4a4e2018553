package loader

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/bothy-os/bothy/netdata/maps"
)

const (
	vip     = "198.51.100.8"
	farPod  = "10.244.9.5" // on another node
	otherIP = "172.16.0.1" // a second address of the node
)

// frontends of a service with a view for each side.
func (b *bench) localPolicy(addr string, outside, inside []string, flags maps.ServiceFlags) {
	b.t.Helper()
	f := maps.Frontend{Addr: ap(addr), Proto: maps.TCP, Outside: true}
	b.must(b.Tables.WriteSlots(100, aps(outside)))
	b.must(b.Tables.WriteSlots(200, aps(inside)))
	b.row(f, maps.ServiceRow{ID: 100, Base: 100, Count: uint16(len(outside)), Flags: flags})
	f.Outside = false
	b.row(f, maps.ServiceRow{ID: 200, Base: 200, Count: uint16(len(inside)), Flags: maps.ServiceOutsideView})
}

func aps(in []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range in {
		out = append(out, ap(s))
	}
	return out
}

func TestTrafficPolicyIsForClientsOutside(t *testing.T) {
	b := load(t)
	b.localPolicy(vip+":80", []string{podB + ":8080"}, []string{farPod + ":8080"}, 0)
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", vip+":80", flagSYN).frame())
	want(t, verdict, redirect, out, far+":5000", podB+":8080")
	verdict, out = b.asPod(tcp(podA+":1000", vip+":80", flagSYN))
	want(t, verdict, pass, out, podA+":1000", farPod+":8080")
	// A pod of another node is no client outside either.
	_, out = b.run(b.objs.FromExt, tcp("10.244.9.9:1000", vip+":80", flagSYN).frame())
	if got := parseFrame(t, out).dst; got != ap(farPod+":8080") {
		t.Errorf("a pod of another node was sent to %s", got)
	}
}

func TestWithoutLocalEndpointPacketsAreDropped(t *testing.T) {
	b := load(t)
	b.localPolicy(vip+":80", nil, []string{farPod + ":8080"}, maps.ServiceDropEmpty)
	if verdict, _ := b.run(b.objs.FromExt, tcp(far+":5000", vip+":80", flagSYN).frame()); verdict != shot || b.drops("no-local-endpoint") != 1 {
		t.Errorf("verdict %d, counter %d", verdict, b.drops("no-local-endpoint"))
	}
	b.localPolicy(vip+":80", nil, []string{farPod + ":8080"}, 0)
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", vip+":80", flagSYN).frame())
	if got := want(t, verdict, redirect, out, vip+":80", far+":5000"); got.flags != flagRST|flagACK {
		t.Errorf("without any endpoint: flags %x, want a reset", got.flags)
	}
}

func TestNodePortOnEveryAddressOfTheNode(t *testing.T) {
	b := load(t)
	b.service("0.0.0.0:30080", maps.TCP, 0, 0, podB+":8080")
	b.must(b.Tables.SetNodeAddrs([]netip.Addr{netip.MustParseAddr(otherIP)}))
	for _, addr := range []string{node, otherIP} {
		verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", addr+":30080", flagSYN).frame())
		want(t, verdict, redirect, out, far+":5000", podB+":8080")
		verdict, out = b.asPod(tcp(podA+":1000", addr+":30080", flagSYN))
		want(t, verdict, redirect, out, podA+":1000", podB+":8080")
	}
	if verdict, _ := b.run(b.objs.FromExt, tcp(far+":5000", vip+":30080", flagSYN).frame()); verdict != pass {
		t.Errorf("an address that is not the node's: verdict %d", int32(verdict))
	}
	b.must(b.Tables.SetNodeAddrs(nil))
	if verdict, _ := b.run(b.objs.FromExt, tcp(far+":5001", otherIP+":30080", flagSYN).frame()); verdict != pass {
		t.Errorf("an address that the node has no more: verdict %d", int32(verdict))
	}
}

// The node's own processes may have ports on 127.0.0.1; the wire has no such address.
func TestLoopbackIsNotServedToTheWire(t *testing.T) {
	b := load(t)
	b.service("127.0.0.1:80", maps.TCP, 0, 0, podB+":8080")
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", "127.0.0.1:80", flagSYN).frame())
	want(t, verdict, pass, out, far+":5000", "127.0.0.1:80")
	verdict, out = b.asPod(tcp(podA+":5000", "127.0.0.1:80", flagSYN))
	want(t, verdict, pass, out, podA+":5000", "127.0.0.1:80")
}

func TestSourceRanges(t *testing.T) {
	b := load(t)
	b.must(b.Tables.WriteSlots(0, aps([]string{podB + ":8080"})))
	b.must(b.Tables.PutSourceRange(7, netip.MustParsePrefix("192.0.2.0/29")))
	b.must(b.Tables.PutSourceRange(8, netip.MustParsePrefix("0.0.0.0/0"))) // of another service
	b.row(maps.Frontend{Addr: ap(vip + ":80"), Proto: maps.TCP}, maps.ServiceRow{ID: 7, Count: 1, Flags: maps.ServiceSourceRanges})
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", vip+":80", flagSYN).frame())
	want(t, verdict, redirect, out, far+":5000", podB+":8080")
	for _, client := range []string{"192.0.2.8:5000", podA + ":5000"} {
		run := func() (uint32, []byte) { return b.run(b.objs.FromExt, tcp(client, vip+":80", flagSYN).frame()) }
		if client == podA+":5000" {
			run = func() (uint32, []byte) { return b.asPod(tcp(client, vip+":80", flagSYN)) }
		}
		if verdict, _ := run(); verdict != shot {
			t.Errorf("%s: verdict %d, want drop", client, int32(verdict))
		}
	}
	if n := b.drops("source-range"); n != 2 {
		t.Errorf("counter %d, want 2", n)
	}
	got, err := b.Tables.SourceRanges()
	b.must(err)
	if len(got) != 2 || len(got[7]) != 1 || got[7][0] != netip.MustParsePrefix("192.0.2.0/29") {
		t.Errorf("read back %v", got)
	}
	b.must(b.Tables.DeleteSourceRange(7, netip.MustParsePrefix("192.0.2.0/29")))
	if verdict, _ := b.run(b.objs.FromExt, tcp(far+":5001", vip+":80", flagSYN).frame()); verdict != shot {
		t.Error("the range was deleted and still lets clients in")
	}
}

func TestBackendOnAnotherNodeAnswersByWayOfThisOne(t *testing.T) {
	for _, proto := range []maps.Protocol{maps.TCP, maps.UDP} {
		b := load(t)
		b.service("0.0.0.0:30080", proto, 0, 0, farPod+":8080")
		p := tcp(far+":5000", node+":30080", flagSYN)
		if proto == maps.UDP {
			p = udp(far+":5000", node+":30080")
		}
		_, out := b.run(b.objs.FromExt, p.frame())
		sent := parseFrame(t, out)
		if sent.src.Addr() != netip.MustParseAddr(node) || sent.src.Port() < SNATPortMin || sent.dst != ap(farPod+":8080") {
			t.Fatalf("sent on as %s->%s", sent.src, sent.dst)
		}
		// It leaves as it is...
		verdict, _ := b.run(b.objs.ToExt, out)
		if verdict != pass {
			t.Errorf("verdict %d where it leaves", int32(verdict))
		}
		// ...and the answer goes to the client in the node's name.
		answer := p
		answer.src, answer.dst, answer.flags = sent.dst, sent.src, flagSYN|flagACK
		_, out = b.run(b.objs.FromExt, answer.frame())
		if got := parseFrame(t, out); got.src != ap(node+":30080") || got.dst != ap(far+":5000") {
			t.Errorf("answered as %s->%s", got.src, got.dst)
		}
		// The next packet takes the same way.
		p.flags = flagACK
		_, out = b.run(b.objs.FromExt, p.frame())
		if got := parseFrame(t, out); got.src != sent.src {
			t.Errorf("the second packet left as %s, the first as %s", got.src, sent.src)
		}
	}
}

// A pod's request to a service goes to another node, or outside; what comes back passes only the uplink.
func TestAnswerFromElsewhereIsTheServices(t *testing.T) {
	for name, backend := range map[string]string{"pod of another node": farPod + ":8080", "outside": far + ":8080"} {
		t.Run(name, func(t *testing.T) {
			b := load(t)
			b.service("10.96.0.20:80", maps.TCP, 0, 0, backend)
			verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
			want(t, verdict, pass, out, podA+":1000", backend)
			verdict, out = b.run(b.objs.ToExt, out)
			sent := want(t, verdict, pass, out, "", backend)
			if masqueraded := sent.src.Addr() == netip.MustParseAddr(node); masqueraded != (backend == far+":8080") {
				t.Errorf("leaves as %s", sent.src)
			}
			answer := tcp(backend, sent.src.String(), flagSYN|flagACK)
			verdict, out = b.run(b.objs.FromExt, answer.frame())
			want(t, verdict, redirect, out, "10.96.0.20:80", podA+":1000")

			// An error on the way speaks of what the pod sent.
			quoted := tcp(sent.src.String(), backend, flagACK)
			e := packet{src: ap("198.51.100.1:0"), dst: netip.AddrPortFrom(sent.src.Addr(), 0), proto: protoICMP, icmpType: 3, icmpCode: 4, payload: quoted.ip()[:28]}
			verdict, out = b.run(b.objs.FromExt, e.frame())
			got := want(t, verdict, redirect, out, "198.51.100.1:0", podA+":0")
			if q := parseIP(t, got.payload, false); q.src != ap(podA+":1000") || q.dst != ap("10.96.0.20:80") {
				t.Errorf("quotes %s->%s", q.src, q.dst)
			}
		})
	}
}

func TestRangesThatAreNotMasqueraded(t *testing.T) {
	b := load(t)
	b.must(b.Tables.SetUnmasqueraded([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}))
	for dst, masqueraded := range map[string]bool{
		"192.0.2.9:80": false, "198.51.100.7:80": false, farPod + ":80": false, "198.51.100.9:80": true,
	} {
		verdict, out := b.run(b.objs.ToExt, tcp(podA+":1000", dst, flagSYN).frame())
		got := want(t, verdict, pass, out, "", dst)
		if (got.src.Addr() == netip.MustParseAddr(node)) != masqueraded {
			t.Errorf("to %s as %s", dst, got.src)
		}
	}
	b.must(b.Tables.SetUnmasqueraded(nil))
	_, out := b.run(b.objs.ToExt, tcp(podA+":1001", "192.0.2.9:80", flagSYN).frame())
	if got := parseFrame(t, out); got.src.Addr() != netip.MustParseAddr(node) {
		t.Error("the rule was withdrawn and is still in force")
	}
}

func TestHostPortsAndServicesDoNotTakeEachOthersPorts(t *testing.T) {
	b := load(t)
	f := maps.Frontend{Addr: ap("0.0.0.0:8080"), Proto: maps.TCP}
	b.must(b.Tables.PutHostPort(f, ap(podB+":80")))
	verdict, out := b.run(b.objs.FromExt, tcp(far+":5000", node+":8080", flagSYN).frame())
	want(t, verdict, redirect, out, far+":5000", podB+":80")
	if err := b.Tables.PutHostPort(f, ap(podA+":80")); err == nil {
		t.Error("a second pod got the same host port")
	}
	if err := b.Tables.PutService(f, maps.ServiceRow{ID: 1}, true); err == nil {
		t.Error("a service got the port of a pod")
	}
	rows, err := b.Tables.Services()
	b.must(err)
	if len(rows) != 0 {
		t.Errorf("host ports are among the services: %v", rows)
	}
	b.must(b.Tables.DeleteHostPorts(netip.MustParseAddr(podA)))
	b.must(b.Tables.DeleteHostPorts(netip.MustParseAddr(podB)))
	b.must(b.Tables.PutService(f, maps.ServiceRow{ID: 1}, true))
	if err := b.Tables.PutHostPort(f, ap(podA+":80")); err == nil {
		t.Error("a pod got the port of a service")
	}
}

// sctp has a valid checksum, or none if the device is to compute it.
func sctp(src, dst string, chunk byte, offloaded bool) packet {
	body := make([]byte, 12+20)
	s, d := ap(src), ap(dst)
	binary.BigEndian.PutUint16(body, s.Port())
	binary.BigEndian.PutUint16(body[2:], d.Port())
	binary.BigEndian.PutUint32(body[4:], 0xdeadbeef)
	body[12], body[15] = chunk, 20
	for i := range 16 {
		body[16+i] = byte(i * 7)
	}
	if !offloaded {
		binary.LittleEndian.PutUint32(body[8:], crc32c(body))
	}
	return packet{src: netip.AddrPortFrom(s.Addr(), 0), dst: netip.AddrPortFrom(d.Addr(), 0), proto: byte(maps.SCTP), payload: body}
}

// crc32c is computed bit by bit, unlike in the programs.
func crc32c(b []byte) uint32 {
	crc := ^uint32(0)
	for _, x := range b {
		crc ^= uint32(x)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0x82f63b78
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

func TestSCTP(t *testing.T) {
	for name, offloaded := range map[string]bool{"checksum complete": false, "checksum left to the device": true} {
		t.Run(name, func(t *testing.T) {
			b := load(t)
			b.service("10.96.0.20:3868", maps.SCTP, 0, 0, podB+":13868")
			check := func(out []byte, src, dst string) {
				t.Helper()
				got := parseFrame(t, out)
				body := slices.Clone(out[34:])
				s := netip.AddrPortFrom(got.src.Addr(), binary.BigEndian.Uint16(body))
				d := netip.AddrPortFrom(got.dst.Addr(), binary.BigEndian.Uint16(body[2:]))
				if s != ap(src) || d != ap(dst) {
					t.Errorf("%s->%s, want %s->%s", s, d, src, dst)
				}
				sum := binary.LittleEndian.Uint32(body[8:])
				clear(body[8:12])
				if want := crc32c(body); offloaded && sum != 0 || !offloaded && sum != want {
					t.Errorf("checksum %08x, want %08x", sum, want)
				}
			}
			verdict, out := b.asPod(sctp(podA+":1000", "10.96.0.20:3868", 1, offloaded))
			if verdict != redirect {
				t.Fatalf("verdict %d", int32(verdict))
			}
			check(out, podA+":1000", podB+":13868")
			_, out = b.asPod(sctp(podB+":13868", podA+":1000", 2, offloaded))
			check(out, "10.96.0.20:3868", podA+":1000")

			// An association of which nothing is known cannot be given a backend.
			if verdict, _ := b.asPod(sctp(podA+":1001", "10.96.0.20:3868", 0, offloaded)); verdict == pass {
				t.Error("data of an unknown association left the node")
			}
		})
	}
}

func TestFragmentsFollowTheFirst(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.UDP, 0, 0, podB+":8080")
	whole := udp(podA+":1000", "10.96.0.20:80")
	whole.payload = make([]byte, 3000)
	for i := range whole.payload {
		whole.payload[i] = byte(i)
	}
	parts := fragment(whole, 1480)
	if verdict, _ := b.run(b.objs.FromPod, parts[1]); verdict != shot || b.drops("fragment") != 1 {
		t.Errorf("a fragment before the first: verdict %d, counter %d", verdict, b.drops("fragment"))
	}
	var got []byte
	for i, f := range parts {
		verdict, out := b.run(b.objs.FromPod, f)
		if verdict != redirect {
			t.Fatalf("fragment %d: verdict %d", i, int32(verdict))
		}
		if checksum(nil, out[14:34]) != 0 {
			t.Errorf("fragment %d: IP header checksum is wrong", i)
		}
		if src, dst := [4]byte(out[26:30]), [4]byte(out[30:34]); netip.AddrFrom4(src) != netip.MustParseAddr(podA) || netip.AddrFrom4(dst) != netip.MustParseAddr(podB) {
			t.Errorf("fragment %d: %v->%v", i, src, dst)
		}
		got = append(got, out[34:]...)
	}
	if port := binary.BigEndian.Uint16(got[2:]); port != 8080 {
		t.Errorf("port %d", port)
	}
	src, dst := netip.MustParseAddr(podA).As4(), netip.MustParseAddr(podB).As4()
	if checksum(pseudo(src, dst, protoUDP, len(got)), got) != 0 {
		t.Error("checksum of the whole datagram is wrong")
	}
	if !slices.Equal(got[8:], whole.payload) {
		t.Error("the payload was changed")
	}
}

// fragment cuts a packet without options; size is a multiple of eight.
func fragment(p packet, size int) [][]byte {
	frame := p.frame()
	header, body := frame[:34], frame[34:]
	var out [][]byte
	for at := 0; at < len(body); at += size {
		part := body[at:min(at+size, len(body))]
		h := slices.Clone(header)
		flags := uint16(at / 8)
		if at+size < len(body) {
			flags |= 0x2000
		}
		binary.BigEndian.PutUint16(h[16:], uint16(20+len(part)))
		binary.BigEndian.PutUint16(h[18:], 4711)
		binary.BigEndian.PutUint16(h[20:], flags)
		binary.BigEndian.PutUint16(h[24:], 0)
		binary.BigEndian.PutUint16(h[24:], checksum(nil, h[14:]))
		out = append(out, append(h, part...))
	}
	return out
}

func TestAnnouncedAddressIsAnswered(t *testing.T) {
	b := load(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	b.must(b.Tables.SetAnnounced([]netip.Addr{netip.MustParseAddr(vip)}, mac))
	verdict, out := b.run(b.objs.FromExt, arpRequest("192.0.2.7", vip))
	if verdict != redirect {
		t.Fatalf("verdict %d", int32(verdict))
	}
	want := slices.Concat(
		[]byte{2, 0, 0, 0, 0, 1}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2},
		mac, []byte{198, 51, 100, 8}, []byte{2, 0, 0, 0, 0, 1}, []byte{192, 0, 2, 7})
	if !slices.Equal(out, want) {
		t.Errorf("answered\n%x, want\n%x", out, want)
	}
	other := arpRequest("192.0.2.7", "198.51.100.9")
	if verdict, _ := b.run(b.objs.FromExt, other); verdict != pass {
		t.Errorf("another address: verdict %d", int32(verdict))
	}
	reply := arpRequest("192.0.2.7", vip)
	reply[21] = 2
	if verdict, _ := b.run(b.objs.FromExt, reply); verdict != pass {
		t.Errorf("a reply: verdict %d", int32(verdict))
	}
	b.must(b.Tables.SetAnnounced(nil, mac))
	if verdict, _ := b.run(b.objs.FromExt, arpRequest("192.0.2.7", vip)); verdict != pass {
		t.Errorf("withdrawn: verdict %d", int32(verdict))
	}
}

func arpRequest(sender, target string) []byte {
	mac := []byte{2, 0, 0, 0, 0, 1}
	s, d := netip.MustParseAddr(sender).As4(), netip.MustParseAddr(target).As4()
	return slices.Concat([]byte{255, 255, 255, 255, 255, 255}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, s[:], make([]byte, 6), d[:])
}
