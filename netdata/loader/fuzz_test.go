package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
)

// The fuzz targets feed the packet programs anything at all, two frames in a row: the second meets what the
// first has left in the tables. They must give a verdict that the hook may give; leave the checksums right
// that were right, and the rest of the frame as it was; and note nothing of a frame that nobody could use.

// FuzzPrograms is for IPv4.
func FuzzPrograms(f *testing.F) {
	b := load(f)
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":8080")
	b.service("10.96.0.20:53", maps.UDP, 1, 0, podA+":5353")
	b.service("10.96.0.20:3868", maps.SCTP, 2, 0, podB+":13868")
	b.service("0.0.0.0:30081", maps.UDP, 3, 0, farPod+":8080")
	b.service(node+":30080", maps.TCP, 4, 60, podA+":8080")
	b.service("10.96.0.22:80", maps.TCP, 5, 0)
	b.must(b.Tables.SetServicesSynced())
	b.must(b.Tables.SetAnnounced([]netip.Addr{netip.MustParseAddr("192.168.50.77")}, net.HardwareAddr{2, 0, 0, 0, 0, 9}))

	open, answer := tcp(podA+":1000", "10.96.0.20:80", flagSYN), tcp(podB+":8080", podA+":1000", flagSYN|flagACK)
	add := func(how byte, frames ...[]byte) { f.Add(how, frames[0], frames[len(frames)-1]) }
	add(byFromPod|repair, open.frame(), answer.frame())
	add(byFromPod|repair|revoke, tcp(podA+":1000", podB+":80", flagSYN).frame(), tcp(podA+":1000", podB+":80", flagACK).frame())
	add(byFromPod|repair, tcp(podA+":1000", "10.96.0.22:80", flagSYN).frame())
	add(byFromPod|repair, udp(podA+":1000", "10.96.0.20:53").frame(), udp(podA+":1000", "10.96.0.99:53").frame())
	add(byFromExt|repair, tcp(far+":5000", node+":30080", flagSYN).frame(), udp(far+":5000", node+":30081").frame())
	add(byToExt|repair, tcp(podA+":1000", far+":80", flagSYN).frame(), udp(podA+":1000", far+":53").frame())
	add(byToPod|repair, tcp(node+":1000", podA+":80", flagSYN).frame())
	quote := packet{src: ap(podB + ":0"), dst: ap(podA + ":0"), proto: protoICMP, icmpType: 3, icmpCode: 3, payload: udp(podA+":1000", podB+":5353").ip()}
	add(byFromPod|repair, udp(podA+":1000", "10.96.0.20:53").frame(), quote.frame())
	add(byFromPod|repair, sctp(podA+":1000", "10.96.0.20:3868", 1, false).frame())
	parts := fragment(udp(podA+":1000", "10.96.0.20:53"), 8)
	add(byFromPod|repair, parts[0], parts[1])
	add(byFromExt, arpRequest("192.168.50.2", "192.168.50.77"))
	short := open.frame()
	add(byFromPod, short[:len(short)-10])
	f.Fuzz(func(t *testing.T, how byte, first, second []byte) { b.fuzz(t, how, first, second) })
}

// FuzzIPv6Programs is for IPv6.
func FuzzIPv6Programs(f *testing.F) {
	b := load6(f)
	b.service("[fd00:96::20]:80", maps.TCP, 0, 0, at6(podB6, "8080"))
	b.service("[fd00:96::20]:53", maps.UDP, 1, 0, at6(podA6, "5353"))
	b.service(at6(node6, "30080"), maps.TCP, 2, 60, at6(podA6, "8080"))
	b.service("[fd00:96::22]:80", maps.TCP, 3, 0)
	b.must(b.Tables.SetServicesSynced())
	b.must(b.Tables.SetAnnounced([]netip.Addr{netip.MustParseAddr("fd00:50::77")}, net.HardwareAddr{2, 0, 0, 0, 0, 9}))

	a, pb := at6(podA6, "1000"), at6(podB6, "80")
	add := func(how byte, frames ...[]byte) { f.Add(how, frames[0], frames[len(frames)-1]) }
	add(byFromPod|repair, tcp(a, "[fd00:96::20]:80", flagSYN).frame(), tcp(at6(podB6, "8080"), a, flagSYN|flagACK).frame())
	add(byFromPod|repair|revoke, tcp(a, pb, flagSYN).frame(), tcp(a, pb, flagACK).frame())
	add(byFromPod|repair, tcp(a, "[fd00:96::22]:80", flagSYN).frame())
	add(byFromPod|repair, udp(a, "[fd00:96::20]:53").frame(), udp(a, "[fd00:96::99]:53").frame())
	add(byFromExt|repair, tcp(at6(far6, "5000"), at6(node6, "30080"), flagSYN).frame())
	add(byToExt|repair, tcp(a, at6(far6, "80"), flagSYN).frame(), udp(a, at6(far6, "53")).frame())
	add(byToPod|repair, tcp(at6(node6, "1000"), a, flagSYN).frame())
	quote := packet{src: ap(at6(podB6, "0")), dst: ap(at6(podA6, "0")), proto: protoICMPv6, icmpType: 1, icmpCode: 4, payload: udp(a, pb).ip6()}
	add(byFromPod|repair, udp(a, pb).frame(), quote.frame())
	f.Fuzz(func(t *testing.T, how byte, first, second []byte) { b.fuzz(t, how, first, second) })
}

// The bits of the first argument: by which program the frames come, whether lengths and checksums
// are put right first, and whether policies change between them.
const (
	byFromPod byte = iota
	byToPod
	byFromExt
	byToExt

	repair byte = 1 << 4
	revoke byte = 1 << 5
	// The frame's hardware address stays what it is, and is mostly that of another machine.
	elsewhere byte = 1 << 6
)

func (b *bench) fuzz(t *testing.T, how byte, first, second []byte) {
	b.t = t
	b.forgetFlows()
	for i, frame := range [][]byte{first, second} {
		if len(frame) < 14 || len(frame) > 1500 {
			t.Skip("the kernel takes no such frame")
		}
		frame = slices.Clone(frame)
		if b.has6() {
			binary.BigEndian.PutUint16(frame[12:], 0x86dd)
		} else if frame[12] != 8 || frame[13] != 6 {
			binary.BigEndian.PutUint16(frame[12:], 0x0800)
		}
		if how&repair != 0 {
			repairFrame(frame)
		}
		if how&elsewhere == 0 {
			clear(frame[:6]) // the hardware address of the device that the kernel has test packets come from
		}
		b.fuzzOne(t, how>>(2*i)&3, frame)
		if i == 0 && how&revoke != 0 {
			b.closePodB(t, true)
			defer b.closePodB(t, false)
		}
	}
}

func (b *bench) fuzzOne(t *testing.T, by byte, frame []byte) {
	prog := []*ebpf.Program{b.objs.FromPod, b.objs.ToPod, b.objs.FromExt, b.objs.ToExt}[by]
	before := b.flowRows()
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
	verdict, err := prog.Run(&opts)
	if errors.Is(err, unix.EINVAL) && len(frame) < 54 {
		t.Skip("this kernel takes no frame that is shorter than its header")
	}
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	if verdict != pass && verdict != shot && (verdict != redirect || by == byToPod || by == byToExt) {
		t.Errorf("verdict %d", int32(verdict))
	}
	in := readFrame(frame)
	after := b.flowRows()
	if in.fragment {
		before++ // its ports may be noted before it is known whether it may go on
	}
	if after > before && (verdict == shot || !in.complete) {
		t.Errorf("%d rows were noted of a packet that is %+v and got verdict %d", after-before, in, int32(verdict))
	}
	if after > before+5 {
		t.Errorf("%d rows were noted of one packet", after-before)
	}
	if verdict != shot {
		checkForwarded(t, in, frame, opts.DataOut)
	}
}

// checkForwarded compares a frame that goes on, or is answered, with what it was.
func checkForwarded(t *testing.T, in fuzzFrame, was, is []byte) {
	out := readFrame(is)
	if in.headerRight && !out.headerRight {
		t.Errorf("the header's checksum was right and is not any more\n%x\n%x", was, is)
	}
	if in.transportRight && !out.transportRight {
		t.Errorf("the transport checksum was right and is not any more\n%x\n%x", was, is)
	}
	// A reset is cut short, whether it came as one or was made of something else.
	answered := out.reset || out.icmp != in.icmp
	if answered || !in.complete || in.icmp || !in.ports {
		return
	}
	if len(was) != len(is) {
		t.Fatalf("%d bytes became %d\n%x\n%x", len(was), len(is), was, is)
	}
	if !bytes.Equal(masked(was, in), masked(is, in)) {
		t.Errorf("more was changed than addresses, ports and what follows from them\n%x\n%x", was, is)
	}
}

// fuzzFrame is what the test, not the programs, reads of a frame.
type fuzzFrame struct {
	// complete: the IP header is there, makes sense, and the packet it describes is in the frame.
	complete bool
	// headerRight and transportRight say that there is a checksum and that it is right.
	headerRight, transportRight bool
	icmp, reset, ports          bool
	l4, end                     int
	proto                       byte
	fragment                    bool
}

func readFrame(frame []byte) (f fuzzFrame) {
	switch {
	case len(frame) >= 34 && frame[12] == 8 && frame[13] == 0:
		f.readIPv4(frame)
	case len(frame) >= 54 && frame[12] == 0x86:
		f.l4, f.end, f.proto = 54, 54+int(binary.BigEndian.Uint16(frame[18:])), frame[20]
		f.complete = f.end <= len(frame)
	}
	if !f.complete || f.fragment {
		return f
	}
	l4 := frame[f.l4:f.end]
	f.icmp = f.proto == protoICMP || f.proto == protoICMPv6
	switch {
	case f.proto == protoTCP && len(l4) >= 20:
		f.ports, f.reset = true, l4[13]&flagRST != 0
	case f.proto == protoUDP && len(l4) >= 8:
		f.ports = true
		if l4[6] == 0 && l4[7] == 0 {
			return f // it has none
		}
	case f.icmp && len(l4) >= 8:
	default:
		return f
	}
	f.transportRight = checksum(f.pseudo(frame), l4) == 0
	return f
}

func (f *fuzzFrame) readIPv4(frame []byte) {
	header, total := int(frame[14]&15)*4, int(binary.BigEndian.Uint16(frame[16:]))
	f.l4, f.end, f.proto = 14+header, 14+total, frame[23]
	f.complete = header >= 20 && total >= header && f.end <= len(frame)
	f.fragment = binary.BigEndian.Uint16(frame[20:])&0x3fff != 0
	f.headerRight = f.complete && checksum(nil, frame[14:f.l4]) == 0
}

// pseudo is the pseudo header of the transport checksum.
func (f *fuzzFrame) pseudo(frame []byte) []byte {
	if frame[12] == 0x86 {
		out := slices.Clone(frame[22:54])
		out = binary.BigEndian.AppendUint32(out, uint32(f.end-f.l4))
		return append(out, 0, 0, 0, f.proto)
	}
	if f.proto == protoICMP {
		return nil
	}
	return pseudo([4]byte(frame[26:30]), [4]byte(frame[30:34]), f.proto, f.end-f.l4)
}

// masked leaves out what the programs may change of a packet with ports.
func masked(frame []byte, f fuzzFrame) []byte {
	out := slices.Clone(frame)
	zero := func(from, n int) { clear(out[from : from+n]) }
	zero(0, 12)
	if frame[12] == 0x86 {
		zero(21, 33) // hop limit and addresses
	} else {
		zero(22, 1)
		zero(24, 10)
	}
	zero(f.l4, 4)
	if f.proto == protoTCP {
		zero(f.l4+16, 2)
	} else {
		zero(f.l4+6, 2)
	}
	return out
}

// repairFrame makes lengths and checksums right where the frame has room for them.
func repairFrame(frame []byte) {
	switch {
	case len(frame) >= 34 && frame[12] == 8 && frame[13] == 0:
		frame[14] = 0x40 | max(frame[14]&15, 5)
		header := int(frame[14]&15) * 4
		if 14+header > len(frame) {
			return
		}
		binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
		binary.BigEndian.PutUint16(frame[24:], 0)
		binary.BigEndian.PutUint16(frame[24:], checksum(nil, frame[14:14+header]))
	case len(frame) >= 54 && frame[12] == 0x86:
		binary.BigEndian.PutUint16(frame[18:], uint16(len(frame)-54))
	}
	f := readFrame(frame)
	at := map[byte]int{protoTCP: 16, protoUDP: 6, protoICMP: 2, protoICMPv6: 2}[f.proto]
	if !f.complete || f.fragment || at == 0 || f.l4+at+2 > f.end {
		return
	}
	binary.BigEndian.PutUint16(frame[f.l4+at:], 0)
	binary.BigEndian.PutUint16(frame[f.l4+at:], checksum(f.pseudo(frame), frame[f.l4:f.end]))
}

func (b *bench) has6() bool { return b.objs == b.programs[maps.IPv6] }

func (b *bench) flowMaps() []*ebpf.Map {
	family := maps.IPv4
	if b.has6() {
		family = maps.IPv6
	}
	all := b.Tables.Replacements(family)
	return []*ebpf.Map{all["ct"], all["nats"], all["affinities"], all["fragments"]}
}

func (b *bench) flowRows() (n int) {
	b.t.Helper()
	for _, m := range b.flowMaps() {
		key, err := m.NextKeyBytes(nil)
		for ; err == nil && key != nil; key, err = m.NextKeyBytes(key) {
			n++
		}
		b.must(err)
	}
	return n
}

func (b *bench) forgetFlows() {
	b.t.Helper()
	for _, m := range b.flowMaps() {
		for {
			key, err := m.NextKeyBytes(nil)
			b.must(err)
			if key == nil {
				break
			}
			b.must(m.Delete(key))
		}
	}
}

// closePodB has a policy let nobody in to pod B, or everybody.
func (b *bench) closePodB(t *testing.T, yes bool) {
	identity := uint32(0)
	if yes {
		identity = maps.IsolatedIngress | 1
	}
	for _, a := range []string{podB, podB6} {
		if _, err := b.Tables.SetIdentity(netip.MustParseAddr(a), identity); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Tables.NextPolicyRevision(); err != nil {
		t.Fatal(err)
	}
}
