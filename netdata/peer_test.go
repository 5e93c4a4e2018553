package netdata

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// peerEnv marks the process that is the second node of a test, and tells it what it is.
const peerEnv = "BOTHY_NETDATA_TEST_PEER"

// peerSpec is what the second node is told.
type peerSpec struct {
	Addrs      []netip.Prefix
	Gateways   []netip.Addr
	Kubeconfig string
	// Encapsulate is the setting of that name.
	Encapsulate bool
}

// question is what the first node asks of the second, and what it gets back.
type question struct {
	Do, Proto, Addr string
}

type reply struct {
	Addrs          []netip.Addr
	Server, Client string
	MTU            int
	Err            string
}

// peer is the second node as the first one sees it.
type peer struct {
	t    *testing.T
	pid  int
	ask  *json.Encoder
	hear *json.Decoder
}

// startPeer makes a process with namespaces of its own. It does nothing until it has an interface eth0.
func startPeer(t *testing.T, spec peerSpec) *peer {
	t.Helper()
	data, err := json.Marshal(spec)
	must(t, err)
	theirQuestions, questions, err := os.Pipe()
	must(t, err)
	answers, theirAnswers, err := os.Pipe()
	must(t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPeer$", "-test.v", "-test.timeout=80s")
	cmd.Env = append(os.Environ(), peerEnv+"="+string(data))
	// It ends when nobody can ask it any more. A death signal would come with the end of the thread
	// that started it, and tests throw threads away.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	cmd.ExtraFiles = []*os.File{theirQuestions, theirAnswers}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	must(t, cmd.Start())
	theirQuestions.Close()
	theirAnswers.Close()
	t.Cleanup(func() {
		questions.Close() // that is its end
		if err := cmd.Wait(); err != nil {
			t.Errorf("the second node: %v", err)
		}
	})
	return &peer{t: t, pid: cmd.Process.Pid, ask: json.NewEncoder(questions), hear: json.NewDecoder(answers)}
}

func (p *peer) do(q question) reply {
	p.t.Helper()
	must(p.t, p.ask.Encode(q))
	var r reply
	must(p.t, p.hear.Decode(&r))
	if r.Err != "" {
		p.t.Fatalf("the second node, asked to %s %s %s: %s", q.Do, q.Proto, q.Addr, r.Err)
	}
	return r
}

// connect makes a link between a device of a namespace, "" for the node's, and the peer's eth0.
func (p *peer) connect(name, nsPath string, addrs ...netip.Prefix) {
	t := p.t
	t.Helper()
	theirs, err := netns.GetFromPid(p.pid)
	must(t, err)
	defer theirs.Close()
	link := func() (struct{}, error) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(theirs)}); err != nil {
			return struct{}{}, err
		}
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, errors.Join(addAddrs(dev, addrs), netlink.LinkSetUp(dev))
	}
	if nsPath == "" {
		_, err = link()
	} else {
		_, err = in(t, nsPath, link)
	}
	must(t, err)
}

func addAddrs(dev netlink.Link, addrs []netip.Prefix) error {
	for _, p := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(dev, addr); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return nil
}

// TestPeer is no test: it is the second node, when another test makes one.
func TestPeer(t *testing.T) {
	text := os.Getenv(peerEnv)
	if text == "" {
		t.Skip("runs as the second node of other tests")
	}
	var spec peerSpec
	must(t, json.Unmarshal([]byte(text), &spec))
	os.Unsetenv(childEnv) // the first node's cgroup is not ours
	n := newUnconnectedNode(t)
	n.connectPeer(spec)
	n.cfg.NodeName, n.cfg.Kubeconfig, n.cfg.DNSKubeconfig = "far", spec.Kubeconfig, spec.Kubeconfig
	n.cfg.NodeIPs, n.cfg.Encapsulate = nil, spec.Encapsulate
	for _, p := range spec.Addrs {
		n.cfg.NodeIPs = append(n.cfg.NodeIPs, p.Addr())
	}
	questions, answers := json.NewDecoder(os.NewFile(3, "questions")), json.NewEncoder(os.NewFile(4, "answers"))
	var p pod
	for {
		var q question
		err := questions.Decode(&q)
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		var r reply
		switch q.Do {
		case "start":
			n.start("nodes", "services")
			p = n.pod(buildPlugin(t, n.dir), "far")
			echoTCP(t, p.ns, ":8080", "far")
			echoUDP(t, p.ns, ":8080", "far")
			r.Addrs = []netip.Addr{p.addr, p.addr6}
		case "ask":
			r.Server, r.Client, err = ask(t, p.ns, q.Proto, q.Addr)
		case "mtu":
			var dev *net.Interface
			if dev, err = in(t, p.ns, func() (*net.Interface, error) { return net.InterfaceByName("eth0") }); err == nil {
				r.MTU = dev.MTU
			}
		}
		if err != nil {
			r.Err = err.Error()
		}
		must(t, answers.Encode(r))
	}
}

func (n *testNode) connectPeer(spec peerSpec) {
	t := n.t
	var dev netlink.Link
	wait(t, "an interface", func() (err error) {
		dev, err = netlink.LinkByName("eth0")
		return err
	})
	must(t, addAddrs(dev, spec.Addrs))
	must(t, netlink.LinkSetUp(dev))
	for _, gw := range spec.Gateways {
		everywhere := &net.IPNet{IP: make(net.IP, gw.BitLen()/8), Mask: net.CIDRMask(0, gw.BitLen())}
		must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: gw.AsSlice()}))
	}
}

// forwarding makes a namespace a router.
func forwarding(t *testing.T, nsPath string) {
	t.Helper()
	_, err := in(t, nsPath, func() (struct{}, error) {
		var errs []error
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys/net", name), []byte("1"), 0))
		}
		return struct{}{}, errors.Join(errs...)
	})
	must(t, err)
}
