package netdata

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSplice is two pods whose connections bypass the TCP stack. The test's process is in the node's
// cgroup, so all sockets that it makes in pods' namespaces are the pods'.
func TestSplice(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	if n.cfg.HostCgroup == "" {
		t.Skip("no cgroup2 here")
	}
	plugin := buildPlugin(t, n.dir)
	n.api = newFakeAPI(t)
	n.cfg.PodCIDRs, n.cfg.SpliceNamespaces = testPodCIDRs, []string{"default"}
	n.api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	n.api.kubeconfig(n.dir)
	n.start("cni", "policy", "services")
	if notice := n.network.Status().Notices["splice"]; notice != "" {
		t.Fatal(notice)
	}
	a, b := n.pod(plugin, "a"), n.pod(plugin, "b")
	n.api.put(service("web", "10.96.0.20", 0, 80, 8080))
	n.api.put(slice("web", 8080, b))
	wait(t, "the service", func() error {
		if s := n.network.Status().Services; s.Backends == 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	s := spliceTest{testNode: n, a: a, b: b}
	ways := map[string]string{"pod": b.at(8080), "Service": "10.96.0.20:80", "IPv6": b.at6(8080)}
	for name, addr := range ways {
		t.Run("streams both ways, "+name, func(t *testing.T) { s.streams(t, addr) })
		t.Run("half-close, "+name, func(t *testing.T) { s.halfClose(t, addr) })
		t.Run("reset, "+name, func(t *testing.T) { s.reset(t, addr) })
		t.Run("short connections, "+name, func(t *testing.T) { s.short(t, addr) })
	}
	t.Run("a socket of either family", func(t *testing.T) { s.streams(t, "[::ffff:"+b.addr.String()+"]:8080") })
	t.Run("a receiver that does not read", func(t *testing.T) { s.slowReader(t, b.at(8080)) })
	t.Run("a direction that is closed is closed", func(t *testing.T) { s.writeAfterClose(t, b.at(8080)) })
	t.Run("a policy cuts a running stream", func(t *testing.T) { n.cut(a, b) })
	t.Run("another pod's address is of no use", func(t *testing.T) { s.impostor(t) })
	t.Run("connections outlive the agent", func(t *testing.T) { s.withoutAgent(t, b.at(8080)) })
	t.Run("switched off", func(t *testing.T) { s.switchedOff(t, b.at(8080)) })
}

type spliceTest struct {
	*testNode
	a, b pod
}

// pair is a connection from pod a to pod b.
func (s spliceTest) pair(t *testing.T, addr string) (client, server *net.TCPConn) {
	t.Helper()
	l, err := in(t, s.b.ns, func() (net.Listener, error) { return net.Listen("tcp", ":8080") })
	must(t, err)
	defer l.Close()
	c, err := dial(t, s.a.ns, "tcp", addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	accepted, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { accepted.Close() })
	deadline := time.Now().Add(patiently(20 * time.Second))
	must(t, errors.Join(c.SetDeadline(deadline), accepted.SetDeadline(deadline)))
	return c.(*net.TCPConn), accepted.(*net.TCPConn)
}

// onTheWire counts the bytes that the pods have sent as packets.
func (s spliceTest) onTheWire(t *testing.T) uint64 {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	var sum uint64
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().Name != s.cfg.Uplink {
			sum += l.Attrs().Statistics.RxBytes
		}
	}
	return sum
}

// streamBytes is sent each way by each of the connections of a test.
const streamBytes = 4 << 20

// streams has several connections send both ways at once, in pieces of any size, and compares every byte.
func (s spliceTest) streams(t *testing.T, addr string) {
	const connections = 4
	before := s.onTheWire(t)
	var wg sync.WaitGroup
	for i := range connections {
		client, server := s.pair(t, addr)
		for k, ends := range [][2]*net.TCPConn{{client, server}, {server, client}} {
			seed := uint64(2*i + k)
			wg.Go(func() {
				if err := sendStream(ends[0], seed); err != nil {
					t.Errorf("send: %v", err)
				}
			})
			wg.Go(func() {
				if err := receiveStream(ends[1], seed); err != nil {
					t.Errorf("receive: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if sent := s.onTheWire(t) - before; sent > streamBytes {
		t.Errorf("%d bytes went as packets, of %d: nothing was spliced", sent, 2*connections*streamBytes)
	}
}

// sendStream sends what receiveStream expects, mostly in small pieces.
func sendStream(c net.Conn, seed uint64) error {
	data, sizes := streamData(seed), rand.New(rand.NewPCG(seed, 1))
	for len(data) > 0 {
		size := 1 + sizes.IntN(9000)
		if sizes.IntN(50) == 0 {
			size = 200 << 10
		}
		size = min(size, len(data))
		if _, err := c.Write(data[:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

func receiveStream(c net.Conn, seed uint64) error {
	want, sizes := streamData(seed), rand.New(rand.NewPCG(seed, 2))
	buf := make([]byte, 64<<10)
	for at := 0; at < len(want); {
		k, err := c.Read(buf[:1+sizes.IntN(len(buf))])
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
		if at+k > len(want) || string(buf[:k]) != string(want[at:at+k]) {
			return fmt.Errorf("the %d bytes from %d on are not what was sent", k, at)
		}
		at += k
	}
	return nil
}

func streamData(seed uint64) []byte {
	data := make([]byte, streamBytes)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

// halfClose has the server answer when it has seen the end of what the client sends.
func (s spliceTest) halfClose(t *testing.T, addr string) {
	for seed := range uint64(8) {
		client, server := s.pair(t, addr)
		go func() {
			sum := sha256.New()
			if _, err := io.Copy(sum, server); err == nil {
				_, _ = server.Write(sum.Sum(nil)) // the client misses it
			}
			server.Close()
		}()
		must(t, sendStream(client, seed))
		must(t, client.CloseWrite())
		got, err := io.ReadAll(client)
		want := sha256.Sum256(streamData(seed))
		if err != nil || string(got) != string(want[:]) {
			t.Fatalf("the answer is %x (%v), want %x", got, err, want)
		}
	}
}

// reset has one end give up in the middle: the other must learn it, reading and writing.
func (s spliceTest) reset(t *testing.T, addr string) {
	client, server := s.pair(t, addr)
	_, err := client.Write([]byte("hello"))
	must(t, err)
	buf := make([]byte, 5)
	_, err = io.ReadFull(server, buf)
	must(t, err)
	must(t, client.SetLinger(0))
	must(t, client.Close())
	if _, err := server.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the reader got %v, want a reset", err)
	}
	if _, err := server.Write(buf); err == nil {
		t.Error("the writer was not told")
	}
}

func (s spliceTest) short(t *testing.T, addr string) {
	l, err := in(t, s.b.ns, func() (net.Listener, error) { return net.Listen("tcp", ":8080") })
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if line, err := io.ReadAll(c); err == nil {
					_, _ = c.Write(line) // the client misses it
				}
			}()
		}
	}()
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			for i := range 250 {
				if err := s.once(t, addr, fmt.Sprintf("%d of client %d", i, client)); err != nil {
					t.Errorf("connection %d of client %d: %v", i, client, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// once sends a line and half closes; the echo must be the line and the end.
func (s spliceTest) once(t *testing.T, addr, line string) error {
	c, err := dial(t, s.a.ns, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patiently(5 * time.Second))); err != nil {
		return err
	}
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && string(got) != line {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// slowReader has nothing be lost, however much is taken of the sender.
func (s spliceTest) slowReader(t *testing.T, addr string) {
	client, server := s.pair(t, addr)
	const most = 64 << 20
	piece := make([]byte, 64<<10)
	sent := 0
	must(t, client.SetWriteDeadline(time.Now().Add(time.Second)))
	for sent < most {
		k, err := client.Write(piece)
		sent += k
		if err != nil {
			break
		}
	}
	t.Logf("%d bytes were taken of a sender whose receiver does not read", sent)
	must(t, client.CloseWrite())
	got, err := io.Copy(io.Discard, server)
	if err != nil || got != int64(sent) {
		t.Errorf("%d bytes arrived of %d (%v)", got, sent, err)
	}
}

func (s spliceTest) writeAfterClose(t *testing.T, addr string) {
	client, _ := s.pair(t, addr)
	_, err := client.Write([]byte("hello"))
	must(t, err)
	must(t, client.CloseWrite())
	raw, err := client.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if _, err = syscall.Write(int(fd), []byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("a write after the end: %v, want a broken pipe", err)
		}
	}))
}

// impostor connects to itself under pod b's address, on its own loopback: what it sends must stay there, and
// must not take b's place.
func (s spliceTest) impostor(t *testing.T) {
	client, server := s.pair(t, s.b.at(8080))
	_, err := client.Write([]byte("for b"))
	must(t, err)
	from := client.LocalAddr().(*net.TCPAddr).AddrPort()
	fake := &netlink.Addr{IPNet: &net.IPNet{IP: s.b.addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	_, err = in(t, s.a.ns, func() (struct{}, error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, netlink.AddrAdd(lo, fake)
	})
	must(t, err)
	defer in(t, s.a.ns, func() (struct{}, error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, netlink.AddrDel(lo, fake)
	})
	l, err := in(t, s.a.ns, func() (net.Listener, error) { return net.Listen("tcp4", s.b.at(8080)) })
	must(t, err)
	defer l.Close()
	liar, err := in(t, s.a.ns, func() (net.Conn, error) { return net.DialTimeout("tcp4", s.b.at(8080), time.Second) })
	must(t, err)
	defer liar.Close()
	if got := s.sockets(t); got[netip.MustParseAddrPort(s.b.at(8080))] != 1 {
		t.Errorf("sockets by their own end: %v, want one of pod b", got)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(server, buf); err != nil || string(buf) != "for b" {
		t.Errorf("pod b got %q (%v) from %s", buf, err, from)
	}
}

// sockets counts those that may be spliced, by their own end.
func (s spliceTest) sockets(t *testing.T) map[netip.AddrPort]int {
	t.Helper()
	found, err := s.network.kernel.Load().SplicedSockets()
	must(t, err)
	out := map[netip.AddrPort]int{}
	for _, own := range found {
		out[own]++
	}
	return out
}

func (s spliceTest) withoutAgent(t *testing.T, addr string) {
	client, server := s.pair(t, addr)
	talk := func(when string) {
		t.Helper()
		before := s.onTheWire(t)
		done := make(chan error, 1)
		go func() { done <- sendStream(client, 3) }()
		if err := errors.Join(receiveStream(server, 3), <-done); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if sent := s.onTheWire(t) - before; sent > streamBytes/2 {
			t.Errorf("%s: %d bytes went as packets", when, sent)
		}
	}
	talk("before")
	s.stop()
	talk("without an agent")
	t.Run("a new connection without an agent", func(t *testing.T) { s.streams(t, addr) })
	s.start("cni", "policy")
	talk("with the next agent")
	t.Run("a new connection with the next agent", func(t *testing.T) { s.streams(t, addr) })
}

func (s spliceTest) switchedOff(t *testing.T, addr string) {
	client, server := s.pair(t, addr)
	s.stop()
	s.cfg.SpliceNamespaces = nil
	s.start("cni", "policy")
	done := make(chan error, 1)
	go func() { done <- sendStream(client, 5) }()
	if err := errors.Join(receiveStream(server, 5), <-done); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	before := s.onTheWire(t)
	client, server = s.pair(t, addr)
	go func() { done <- sendStream(client, 6) }()
	if err := errors.Join(receiveStream(server, 6), <-done); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	if sent := s.onTheWire(t) - before; sent < streamBytes {
		t.Errorf("%d bytes of a new connection went as packets, want all %d", sent, streamBytes)
	}
	pins, err := os.ReadDir(filepath.Join(s.cfg.BPFDir, "links"))
	must(t, err)
	for _, p := range pins {
		if p.Name() == "cgroup-splice4" || p.Name() == "cgroup-splice6" {
			t.Errorf("%s is still attached", p.Name())
		}
	}
}
