package loader

import (
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
