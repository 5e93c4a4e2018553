package netdata

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/supervise"
)

// childEnv marks the process that runs inside the namespaces of a test node.
const childEnv = "BOTHY_NETDATA_TEST_NODE"

// inTestNode runs the calling test again in a process with its own network
// and mount namespace and its own cgroup, and reports true in that process.
// The caller returns when it is false: the child's result is the test's.
func inTestNode(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces and eBPF")
	}
	cgroup := makeCgroup(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+patiently(90*time.Second).String())
	cmd.Env = append(os.Environ(), childEnv+"="+cgroup)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in the node's namespaces: %v", err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal("the test did not run in the node's namespaces")
	}
	return false
}

// makeCgroup returns a new cgroup2 directory, or "" where there is no cgroup2.
func makeCgroup(t *testing.T) string {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue
		}
		dir := filepath.Join(root, fmt.Sprintf("bothy-netdata-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			wait(t, "the test's cgroup to be removed", func() error { return os.Remove(dir) })
		})
		return dir
	}
	return ""
}

// wait polls until cond returns nil.
func wait(t *testing.T, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patiently(10 * time.Second))
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testPodCIDRs are for tests without an API.
var testPodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.7.0/24"), netip.MustParsePrefix("fd00:244:0:7::/64")}

// testNode is a node: this process's network namespace, with an uplink to
// an "outside" namespace.
type testNode struct {
	t       *testing.T
	cfg     Config
	outside string // path of the namespace
	dir     string
	network *Network
	stop    func()
	ports   []any // host ports of the next pod
	// api knows the pods that are made, while it is set. Without, they are no pods of a cluster.
	api *fakeAPI
}

var (
	nodeIP    = netip.MustParseAddr("192.168.50.1")
	outsideIP = netip.MustParseAddr("192.168.50.2")
	dnsIP     = netip.MustParseAddr("10.96.0.10")

	nodeIP6    = netip.MustParseAddr("fd00:50::1")
	outsideIP6 = netip.MustParseAddr("fd00:50::2")
	dnsIP6     = netip.MustParseAddr("fd00:96::a")
)

func newTestNode(t *testing.T) *testNode {
	t.Helper()
	n := newUnconnectedNode(t)
	n.outside = n.makeNetns("outside")
	n.connectOutside()
	return n
}

// newUnconnectedNode has no uplink yet.
func newUnconnectedNode(t *testing.T) *testNode {
	t.Helper()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	bpf := filepath.Join(run, "bpf")
	must(t, os.MkdirAll(bpf, 0o755))
	must(t, unix.Mount("bpf", bpf, "bpf", 0, ""))
	t.Cleanup(func() { unix.Unmount(bpf, unix.MNT_DETACH) })

	cgroup := os.Getenv(childEnv)
	if cgroup != "" {
		must(t, os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0))
	}
	n := &testNode{t: t, dir: dir}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	n.cfg = Config{
		StateDir: filepath.Join(dir, "state"), RunDir: run, BPFDir: bpf,
		NodeName: "node", NodeIPs: []netip.Addr{nodeIP, nodeIP6}, Uplink: "eth0", HostCgroup: cgroup,
		ServiceCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")},
		ClusterPodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")},
		ClusterDNS:      []netip.Addr{dnsIP, dnsIP6}, ClusterDomain: "cluster.local",
		NodePortRange: PortRange{30000, 32767},
		Kubeconfig:    filepath.Join(dir, "kubeconfig"), DNSKubeconfig: filepath.Join(dir, "kubeconfig"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	return n
}

func (n *testNode) connectOutside() {
	t := n.t
	ns, err := netns.GetFromPath(n.outside)
	must(t, err)
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}))
	dev, err := netlink.LinkByName("eth0")
	must(t, err)
	for _, a := range []netip.Addr{nodeIP, nodeIP6} {
		must(t, netlink.AddrAdd(dev, onLink(a)))
	}
	must(t, netlink.LinkSetUp(dev))
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		l, err := h.LinkByName(name)
		must(t, err)
		if name == "eth0" {
			for _, a := range []netip.Addr{outsideIP, outsideIP6} {
				must(t, h.AddrAdd(l, onLink(a)))
			}
		}
		must(t, h.LinkSetUp(l))
	}
	for _, a := range []netip.Addr{outsideIP, outsideIP6} {
		everywhere := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
		must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: a.AsSlice()}))
	}
}

// onLink is an address of the link between the node and the outside.
func onLink(a netip.Addr) *netlink.Addr {
	if a.Is4() {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	}
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
}

// makeNetns makes a network namespace and binds it to a file.
func (n *testNode) makeNetns(name string) string {
	t := n.t
	t.Helper()
	path := filepath.Join(n.dir, "netns-"+name)
	must(t, os.WriteFile(path, nil, 0o600))
	onThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() {
		unix.Unmount(path, unix.MNT_DETACH)
	})
	return path
}

// onThread runs f on a thread that is thrown away.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	must(t, <-done)
}

// in runs f with its sockets in a namespace.
func in[T any](t *testing.T, nsPath string, f func() (T, error)) (T, error) {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(nsPath)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		v, err := f()
		done <- result{v, err}
	}()
	r := <-done
	return r.v, r.err
}

// start runs the network until stop.
func (n *testNode) start(waitFor ...string) {
	t := n.t
	t.Helper()
	network, err := New(n.cfg)
	must(t, err)
	s, err := supervise.New(n.cfg.Log, network.Components()...)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	n.network = network
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("supervisor: %v", err)
		}
	}
	t.Cleanup(n.stop)
	for _, name := range waitFor {
		wctx, wcancel := context.WithTimeout(ctx, patiently(10*time.Second))
		err := s.WaitReady(wctx, name)
		wcancel()
		if err != nil {
			t.Fatalf("waiting for %s: %v; status %+v", name, err, s.Status())
		}
	}
}

// echoTCP serves on addr in a namespace ("" for the node's): each line is
// answered with the server's name, the client's address and the line.
func echoTCP(t *testing.T, nsPath, addr, name string) {
	t.Helper()
	listen := func() (net.Listener, error) { return net.Listen("tcp", addr) }
	var l net.Listener
	var err error
	if nsPath == "" {
		l, err = listen()
	} else {
		l, err = in(t, nsPath, listen)
	}
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					k, err := c.Read(buf)
					if err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s %s", name, c.RemoteAddr(), buf[:k])
				}
			}()
		}
	}()
}

func echoUDP(t *testing.T, nsPath, addr, name string) {
	t.Helper()
	listen := func() (net.PacketConn, error) { return net.ListenPacket("udp", addr) }
	var l net.PacketConn
	var err error
	if nsPath == "" {
		l, err = listen()
	} else {
		l, err = in(t, nsPath, listen)
	}
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			k, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			l.WriteTo(fmt.Appendf(nil, "%s %s %s", name, from, buf[:k]), from)
		}
	}()
}

func dial(t *testing.T, nsPath, network, addr string) (net.Conn, error) {
	t.Helper()
	f := func() (net.Conn, error) {
		d := net.Dialer{Timeout: patiently(3 * time.Second)}
		return d.Dial(network, addr)
	}
	if nsPath == "" {
		return f()
	}
	return in(t, nsPath, f)
}

// say sends a line and returns the answer.
func say(c net.Conn, line string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patiently(3 * time.Second))); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	buf := make([]byte, 64<<10)
	k, err := c.Read(buf)
	return string(buf[:k]), err
}

// ask connects, says hello and returns who answered and whom it saw.
func ask(t *testing.T, nsPath, network, addr string) (server, client string, err error) {
	t.Helper()
	c, err := dial(t, nsPath, network, addr)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	answer, err := say(c, "hello")
	if err != nil {
		return "", "", err
	}
	parts := strings.Fields(answer)
	if len(parts) != 3 || parts[2] != "hello" {
		return "", "", fmt.Errorf("garbled answer %q", answer)
	}
	from, err := netip.ParseAddrPort(parts[1])
	return parts[0], from.Addr().Unmap().String(), err
}
