package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/bothy-os/bothy/netdata/maps"
)

// However many frontends lose backends at once, the table is walked once.
func TestCutsAreEndedTogether(t *testing.T) {
	f, c := newFake()
	const frontends = 50
	for i := range frontends {
		vip, backend := fmt.Sprintf("10.96.0.%d:53", i+1), fmt.Sprintf("10.0.0.%d:53", i+1)
		client := fmt.Sprintf("10.0.1.%d:1000", i+1)
		f.translate(tuple(maps.UDP, client, vip), tuple(maps.UDP, client, backend))
		err := c.CutBackends(maps.Frontend{Addr: netip.MustParseAddrPort(vip), Proto: maps.UDP}, uint32(i), []netip.AddrPort{netip.MustParseAddrPort(backend)})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := f.walks
	if err := c.endCuts(); err != nil {
		t.Fatal(err)
	}
	if walks := f.walks - before; walks != 1 {
		t.Errorf("%d walks for %d frontends, want one", walks, frontends)
	}
	for from := range f.translations {
		if from.Dst.Port() == 53 && from.Dst.Addr().As4()[1] == 96 {
			t.Errorf("%s was kept", from)
		}
	}
}

// A node port has one frontend for all addresses of the node; flows are to one of them.
func TestCutsReachTheFlowsOfNodePorts(t *testing.T) {
	for _, family := range []struct{ every, node, other, client, backend string }{
		{"0.0.0.0:30053", "192.0.2.1:30053", "192.0.2.1:30054", "198.51.100.1:1000", "10.0.0.2:53"},
		{"[::]:30053", "[2001:db8::1]:30053", "[2001:db8::1]:30054", "[2001:db8::2]:1000", "[fd00::2]:53"},
	} {
		f, c := newFake()
		goes, stays := tuple(maps.UDP, family.client, family.node), tuple(maps.UDP, family.client, family.other)
		for _, from := range []maps.Tuple{goes, stays} {
			f.translate(from, tuple(maps.UDP, family.client, family.backend))
		}
		frontend := maps.Frontend{Addr: netip.MustParseAddrPort(family.every), Proto: maps.UDP}
		if err := c.CutBackends(frontend, 1, []netip.AddrPort{netip.MustParseAddrPort(family.backend)}); err != nil {
			t.Fatal(err)
		}
		if err := c.endCuts(); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.translations[goes]; ok {
			t.Errorf("%s was kept though its backend is gone", goes)
		}
		if _, ok := f.translations[stays]; !ok {
			t.Errorf("%s was cut, which is to another node port", stays)
		}
	}
}

// A backend of one frontend may be another's, which keeps it.
func TestCutsKeepTheFrontendsApart(t *testing.T) {
	f, c := newFake()
	backend := netip.MustParseAddrPort("10.0.0.2:53")
	stays := tuple(maps.UDP, "10.0.1.1:1000", "10.96.0.2:53")
	f.translate(stays, tuple(maps.UDP, "10.0.1.1:1000", backend.String()))
	for _, x := range []struct{ vip, gone string }{{"10.96.0.1:53", backend.String()}, {"10.96.0.2:53", "10.0.0.3:53"}} {
		err := c.CutBackends(maps.Frontend{Addr: netip.MustParseAddrPort(x.vip), Proto: maps.UDP}, 1, []netip.AddrPort{netip.MustParseAddrPort(x.gone)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.endCuts(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.translations[stays]; !ok {
		t.Error("a flow was cut because of what another frontend lost")
	}
}

// What could not be cut is cut later.
func TestFailedCutsAreTriedAgain(t *testing.T) {
	f, c := newFake()
	failing := true
	c.destroySockets = func(map[netip.AddrPort]bool) error {
		if failing {
			return errors.New("no")
		}
		return nil
	}
	orig := tuple(maps.UDP, "10.0.1.1:1000", "10.96.0.1:53")
	frontend := maps.Frontend{Addr: orig.Dst, Proto: maps.UDP}
	if err := c.CutBackends(frontend, 1, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53")}); err != nil {
		t.Fatal(err)
	}
	if err := c.endCuts(); err == nil {
		t.Fatal("the failure was not reported")
	}
	f.translate(orig, tuple(maps.UDP, "10.0.1.1:1000", "10.0.0.2:53")) // one that came meanwhile
	failing = false
	if err := c.endCuts(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.translations[orig]; ok {
		t.Error("the cut was forgotten when it failed")
	}
}
