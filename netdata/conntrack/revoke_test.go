package conntrack

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bothy-os/bothy/netdata/maps"
)

// row makes a flow that was begun from src, in the order that its key has.
func (f *fakeTable) row(t maps.Tuple, flags maps.FlowFlags) {
	if t.Dst.Compare(t.Src) < 0 {
		t, flags = t.Reverse(), flags|maps.FlowSwapped
	}
	f.flow(t, 0, flags)
}

// aborting has the fake's pods a and b live here, and notes what is aborted.
func aborting(c *Collector) map[string]map[maps.Tuple]bool {
	got := map[string]map[maps.Tuple]bool{}
	c.networks = func() (map[netip.Addr]string, error) {
		return map[netip.Addr]string{netip.MustParseAddr("10.0.0.1"): "a", netip.MustParseAddr("10.0.0.2"): "b"}, nil
	}
	c.abortSockets = func(network string, sockets map[maps.Tuple]bool) (int, error) {
		got[network] = sockets
		return len(sockets), nil
	}
	return got
}

func set(tuples ...maps.Tuple) map[maps.Tuple]bool {
	out := map[maps.Tuple]bool{}
	for _, t := range tuples {
		out[t] = true
	}
	return out
}

func TestRevokedFlowsLoseTheirSockets(t *testing.T) {
	const a, b, vip, far = "10.0.0.1:40000", "10.0.0.2:80", "10.96.0.1:80", "192.0.2.1:443"
	toB := tuple(maps.TCP, a, b)
	for _, tc := range []struct {
		name   string
		flow   maps.Tuple
		flags  maps.FlowFlags
		denied []maps.Tuple
		vip    bool
		want   map[string]map[maps.Tuple]bool
	}{
		{"between two pods", toB, maps.FlowReplied, []maps.Tuple{toB}, false, map[string]map[maps.Tuple]bool{"a": set(toB), "b": set(toB.Reverse())}},
		{"begun by who has the higher address", tuple(maps.TCP, "10.0.0.2:40000", "10.0.0.1:80"), maps.FlowReplied, []maps.Tuple{tuple(maps.TCP, "10.0.0.2:40000", "10.0.0.1:80")}, false, map[string]map[maps.Tuple]bool{
			"a": set(tuple(maps.TCP, "10.0.0.1:80", "10.0.0.2:40000")), "b": set(tuple(maps.TCP, "10.0.0.2:40000", "10.0.0.1:80")),
		}},
		{"only the other way is denied", toB, maps.FlowReplied, []maps.Tuple{toB.Reverse()}, false, nil},
		{"by a Service", toB, maps.FlowReplied | maps.FlowNAT, []maps.Tuple{toB}, true, map[string]map[maps.Tuple]bool{
			"a": set(toB, tuple(maps.TCP, a, vip)), "b": set(toB.Reverse()),
		}},
		{"to the outside", tuple(maps.TCP, a, far), maps.FlowReplied, []maps.Tuple{tuple(maps.TCP, a, far)}, false, map[string]map[maps.Tuple]bool{"a": set(tuple(maps.TCP, a, far))}},
		{"with the node", toB, maps.FlowReplied | maps.FlowNode, []maps.Tuple{toB}, false, nil},
		{"over", toB, maps.FlowReplied | maps.FlowReset, []maps.Tuple{toB}, false, nil},
		{"datagrams", tuple(maps.UDP, a, b), 0, []maps.Tuple{tuple(maps.UDP, a, b), tuple(maps.UDP, b, a)}, false, map[string]map[maps.Tuple]bool{
			"a": set(tuple(maps.UDP, a, b)), "b": set(tuple(maps.UDP, b, a)),
		}},
		{"datagrams that may still go the other way", tuple(maps.UDP, a, b), 0, []maps.Tuple{tuple(maps.UDP, a, b)}, false, map[string]map[maps.Tuple]bool{
			"a": set(tuple(maps.UDP, a, b)),
		}},
		{"datagrams that only the answerer may not begin", tuple(maps.UDP, a, b), 0, []maps.Tuple{tuple(maps.UDP, b, a)}, false, nil},
		{"a protocol that knows no abort", tuple(maps.SCTP, a, b), maps.FlowReplied, []maps.Tuple{tuple(maps.SCTP, a, b)}, false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, c := newFake()
			got := aborting(c)
			f.row(tc.flow, tc.flags)
			f.row(tuple(maps.TCP, "10.0.0.1:5", "10.0.0.2:6"), maps.FlowReplied) // allowed
			if tc.vip {
				f.translate(tuple(maps.TCP, a, vip), toB)
			}
			denied := set(tc.denied...)
			c.Revoke(func(t maps.Tuple) bool { return denied[t] })
			if err := c.endRevoked(); err != nil {
				t.Fatal(err)
			}
			if tc.want == nil {
				tc.want = map[string]map[maps.Tuple]bool{}
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b maps.Tuple) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What could not be aborted is tried again, with what was revoked last.
func TestFailedRevocationsAreTriedAgain(t *testing.T) {
	f, c := newFake()
	got := aborting(c)
	works := c.abortSockets
	c.abortSockets = func(string, map[maps.Tuple]bool) (int, error) { return 0, errors.New("no") }
	first, second := tuple(maps.TCP, "10.0.0.1:1", "192.0.2.1:1"), tuple(maps.TCP, "10.0.0.1:2", "192.0.2.1:2")
	f.row(first, maps.FlowReplied)
	f.row(second, maps.FlowReplied)
	c.Revoke(func(t maps.Tuple) bool { return t == first })
	if err := c.endRevoked(); err == nil {
		t.Fatal("the failure was not reported")
	}
	c.abortSockets = works
	if err := c.endRevoked(); err != nil || !got["a"][first] {
		t.Errorf("aborted %v, %v", got, err)
	}
	delete(got, "a")
	if err := c.endRevoked(); err != nil || len(got) > 0 {
		t.Errorf("aborted again: %v, %v", got, err)
	}

	c.abortSockets = func(string, map[maps.Tuple]bool) (int, error) {
		c.Revoke(func(t maps.Tuple) bool { return t == second }) // meanwhile
		return 0, errors.New("no")
	}
	c.Revoke(func(t maps.Tuple) bool { return t == first })
	if err := c.endRevoked(); err == nil {
		t.Fatal("the failure was not reported")
	}
	c.abortSockets = works
	if err := c.endRevoked(); err != nil || got["a"][first] || !got["a"][second] {
		t.Errorf("aborted %v, %v, want what was revoked last", got, err)
	}
}
