package loader

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/bothy-os/bothy/netdata/maps"
)

// TestOwnAddressFromTheWire: the stack of a node with tunnels takes packets that have the node's own address as their source. Nobody
// but the node makes such packets.
func TestOwnAddressFromTheWire(t *testing.T) {
	b := load(t)
	b.must(b.Tables.SetNodeAddrs([]netip.Addr{netip.MustParseAddr(node), netip.MustParseAddr(otherIP)}))
	for i, src := range []string{node, otherIP} {
		for _, p := range []packet{tcp(src+":5000", node+":22", flagSYN), udp(src+":5000", far+":53")} {
			if verdict, _ := b.run(b.objs.FromExt, p.frame()); verdict != shot {
				t.Errorf("%v: verdict %d", p, verdict)
			}
		}
		if got := b.drops("spoofed-source"); got != uint64(2*(i+1)) {
			t.Errorf("%d packets are counted as spoofed, want %d", got, 2*(i+1))
		}
	}
	if verdict, _ := b.run(b.objs.FromExt, tcp(far+":5000", node+":22", flagSYN).frame()); verdict != pass {
		t.Errorf("a packet from elsewhere: verdict %d", verdict)
	}
	b.objs = b.programs[maps.IPv6]
	if verdict, _ := b.run(b.objs.FromExt, tcp(at6(node6, "5000"), at6(node6, "22"), flagSYN).frame()); verdict != shot {
		t.Errorf("IPv6: verdict %d", verdict)
	}
}

// TestFramesOfOtherMachines: a switch floods what it has no port for, and every node knows the addresses of load balancers and
// its own pods. Only the machine that the frame names serves it.
func TestFramesOfOtherMachines(t *testing.T) {
	b := load(t)
	b.must(b.Tables.SetAnnounced([]netip.Addr{netip.MustParseAddr(vip)}, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	b.service(vip+":80", maps.TCP, 100, 0, podA+":8080")
	group := []byte{0x01, 0, 0x5e, 0, 0, 1}
	everybody := bytes.Repeat([]byte{0xff}, 6)
	for _, p := range []packet{tcp(far+":5000", vip+":80", flagSYN), tcp(far+":5000", podA+":80", flagSYN), echo(far, podA, true)} {
		frame := p.frame()
		for _, mac := range [][]byte{{2, 0xee, 0, 0, 0, 1}, everybody, group} {
			copy(frame, mac)
			if verdict, out := b.runAsIs(b.objs.FromExt, frame); verdict != pass || !bytes.Equal(out, frame) {
				t.Errorf("%v to %x: verdict %d, frame\n%x, want it left to the stack as it was,\n%x", p, mac, int32(verdict), out, frame)
			}
		}
		if n := b.flowRows(); n != 0 {
			t.Errorf("%v: %d rows of the flow", p, n)
		}
		if verdict, _ := b.run(b.objs.FromExt, p.frame()); verdict != redirect {
			t.Errorf("%v to this machine: verdict %d", p, int32(verdict))
		}
		b.forgetFlows()
	}
	asked := arpRequest("192.0.2.7", vip)
	copy(asked, []byte{2, 0xee, 0, 0, 0, 1})
	if verdict, _ := b.runAsIs(b.objs.FromExt, asked); verdict != pass {
		t.Errorf("another machine's question for an address: verdict %d", int32(verdict))
	}
}
