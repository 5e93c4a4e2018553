package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inside runs f in a node's network namespace.
func inside(t *testing.T, n *Node, f func() error) error {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	there, err := netns.GetFromPid(n.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		t.Fatal(err)
	}
	err = f()
	if back := netns.Set(home); back != nil {
		t.Fatal(back) // the thread stays locked, and nobody else gets it
	}
	runtime.UnlockOSThread()
	return err
}

// hello has a listener on an address of a node answer whoever asks. The node's namespace lives as long as it is open.
func hello(t *testing.T, n *Node, address string) (at string, stop func()) {
	t.Helper()
	var l net.Listener
	if err := inside(t, n, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, n.Name)
			c.Close()
		}
	}()
	return l.Addr().String(), func() { l.Close() }
}

func ask(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	return string(data), err
}

// Nodes on a segment reach each other, and the machine them, in both families; it outlives a node that is killed, and is
// gone without a trace when it is removed.
func TestNodesShareASegment(t *testing.T) {
	first, spec := startNode(t, "seg1", "exec sleep 1000")
	alone := first.Network
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	segment, err := OpenSegment(spec.StateDir, "seg1", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := segment.Remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	specs := []Spec{spec, spec}
	specs[1].Name, specs[1].StateDir = "seg2", filepath.Join(spec.StateDir, "nodes", "seg2")
	var nodes []*Node
	for i := range specs {
		specs[i].Segment, specs[i].Index = segment, i
		n, err := Start(t.Context(), specs[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		nodes = append(nodes, n)
	}
	if nodes[0].Network.NodeAddress != alone.NodeAddress {
		t.Errorf("the address of a node that was alone became %s from %s", nodes[0].Network.NodeAddress, alone.NodeAddress)
	}
	reach := func(t *testing.T) {
		t.Helper()
		for i, n := range nodes {
			other := nodes[1-i]
			for _, address := range []string{n.Network.NodeAddress, n.Network.NodeAddress6} {
				if address == "" {
					continue // a machine without IPv6
				}
				at, stop := hello(t, n, address)
				if got, err := ask(at); got != n.Name || err != nil {
					t.Errorf("the machine asks %s: %q, %v", at, got, err)
				}
				if err := inside(t, other, func() error {
					got, err := ask(at)
					if err == nil && got != n.Name {
						err = errors.New("answered by " + got)
					}
					return err
				}); err != nil {
					t.Errorf("node %s asks %s: %v", other.Name, at, err)
				}
				stop()
			}
		}
	}
	reach(t)

	// The first node dies; the other keeps its link, and a new start finds it.
	kill(t, nodes[0])
	if _, err := netlink.LinkByName(nodes[1].Network.Link); err != nil {
		t.Errorf("the other node's link: %v", err)
	}
	again, err := OpenSegment(spec.StateDir, "seg1", true)
	if err != nil || again.Network.Prefix != segment.Network.Prefix {
		t.Fatalf("opened again: %+v, %v", again, err)
	}
	specs[0].Segment = again
	if nodes[0], err = Start(t.Context(), specs[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nodes[0].Stop(context.Background()) })
	reach(t)

	for _, n := range nodes {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("node %s left %v", n.Name, left)
		}
	}
	if err := again.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(segment.Name); err == nil {
		t.Error("the bridge is left")
	}
	if s, err := FindSegment(spec.StateDir); s != nil || err != nil {
		t.Errorf("the record is left: %+v, %v", s, err)
	}
}

func kill(t *testing.T, n *Node) {
	t.Helper()
	p, err := os.FindProcess(n.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed node to be gone", func() bool { return !n.Running() })
	eventually(t, "its link to be gone", func() bool { _, err := netlink.LinkByName(n.Network.Link); return err != nil })
}

func TestAddressesOnASegment(t *testing.T) {
	s := &Segment{Name: "b", Network: Network{Prefix: "100.100.64.0/24", HostAddress: "100.100.64.1", Prefix6: "fd00::/64", HostAddress6: "fd00::1"}}
	seen := map[netip.Addr]bool{netip.MustParseAddr("100.100.64.1"): true, netip.MustParseAddr("fd00::1"): true}
	for i := range MaxSegment {
		v4, v6, err := s.Addresses(i)
		if err != nil {
			t.Fatal(err)
		}
		if seen[v4] || seen[v6] || !netip.MustParsePrefix(s.Network.Prefix).Contains(v4) || !netip.MustParsePrefix(s.Network.Prefix6).Contains(v6) {
			t.Errorf("node %d has %s and %s", i, v4, v6)
		}
		seen[v4], seen[v6] = true, true
	}
	s.Network.HostAddress6 = ""
	if n, err := s.member("x", 1); err != nil || n.NodeAddress6 != "" || n.NodeAddress != "100.100.64.3" || n.Bridge != "b" {
		t.Errorf("without IPv6: %+v, %v", n, err)
	}
	for _, name := range []string{"a", "eight-ch", "a-name-that-is-long", "a-name-that-is-longer"} {
		if got := bridgeName(name); len(got) > 15 || got == linkName(name) {
			t.Errorf("bridge of %s: %s", name, got)
		}
	}
}
