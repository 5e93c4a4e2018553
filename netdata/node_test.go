package netdata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNode is a node's life as its users see it, from the first pod to the last.
func TestNode(t *testing.T) {
	if inTestNode(t) {
		nodeLife(t, newTestNode(t))
	}
}

// TestNodeWithFilters is the same on what kernels before 6.6 have.
func TestNodeWithFilters(t *testing.T) {
	if inTestNode(t) {
		n := newTestNode(t)
		n.cfg.forceFilter = true
		nodeLife(t, n)
	}
}

func nodeLife(t *testing.T, n *testNode) {
	plugin := buildPlugin(t, n.dir)
	api := newFakeAPI(t)
	api.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.7.0/24", "fd00:244:0:7::/64"}}})
	api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	api.kubeconfig(n.dir)
	n.api = api
	n.start("cni", "policy", "services", "dns")

	a, b := n.pod(plugin, "a"), n.pod(plugin, "b")
	for _, p := range []pod{a, b} {
		echoTCP(t, p.ns, ":8080", p.name)
		echoUDP(t, p.ns, ":8080", p.name)
	}
	echoTCP(t, "", nodeIP.String()+":6443", "host")
	echoTCP(t, n.outside, ":9000", "outside")
	echoUDP(t, n.outside, ":9000", "outside")

	api.put(service("web", "10.96.0.20", 30080, 80, 8080))
	api.put(slice("web", 8080, b))
	api.put(service("self", "10.96.0.21", 0, 80, 8080))
	api.put(slice("self", 8080, a))
	api.put(service("empty", "10.96.0.22", 30082, 80, 8080))
	api.put(service("kubernetes", "10.96.0.1", 30081, 443, 6443))
	api.put(sliceOf("kubernetes", 6443, nodeIP))
	wait(t, "the services to be in force", func() error {
		if s := n.network.Status().Services; s.Services != 4 || s.Backends < 6 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})

	for _, proto := range []string{"tcp4", "udp4"} {
		t.Run("pod to pod "+proto, func(t *testing.T) { expect(t, a.ns, proto, b.at(8080), "b", a.addr.String()) })
		t.Run("node to pod "+proto, func(t *testing.T) { expect(t, "", proto, b.at(8080), "b", nodeIP.String()) })
		t.Run("pod to cluster IP "+proto, func(t *testing.T) { expect(t, a.ns, proto, "10.96.0.20:80", "b", a.addr.String()) })
		t.Run("hairpin "+proto, func(t *testing.T) { expect(t, a.ns, proto, "10.96.0.21:80", "a", "169.254.1.1") })
		t.Run("outside to node port "+proto, func(t *testing.T) { expect(t, n.outside, proto, "192.168.50.1:30080", "b", outsideIP.String()) })
		t.Run("pod to node port "+proto, func(t *testing.T) { expect(t, a.ns, proto, "192.168.50.1:30080", "b", a.addr.String()) })
		t.Run("pod to outside "+proto, func(t *testing.T) { expect(t, a.ns, proto, "192.168.50.2:9000", "outside", nodeIP.String()) })
		t.Run("refused "+proto, func(t *testing.T) {
			for _, addr := range []string{"10.96.0.22:80", "10.96.0.20:81", "10.96.7.7:80"} {
				expectRefused(t, a.ns, proto, addr)
			}
			expectRefused(t, n.outside, proto, "192.168.50.1:30082")
		})
	}
	t.Run("pod to node", func(t *testing.T) { expect(t, a.ns, "tcp4", "192.168.50.1:6443", "host", a.addr.String()) })
	t.Run("pod to a host process behind a Service", func(t *testing.T) { expect(t, a.ns, "tcp4", "10.96.0.1:443", "host", a.addr.String()) })
	t.Run("outside to a host process behind a node port", func(t *testing.T) {
		expect(t, n.outside, "tcp4", "192.168.50.1:30081", "host", outsideIP.String())
	})
	t.Run("host process to a Service", func(t *testing.T) {
		if n.cfg.HostCgroup == "" {
			t.Skip("no cgroup2 here")
		}
		for _, proto := range []string{"tcp4", "udp4"} {
			expect(t, "", proto, "10.96.0.20:80", "b", nodeIP.String())
			expectRefused(t, "", proto, "10.96.0.22:80")
			c, err := dial(t, "", proto, "10.96.0.20:80")
			must(t, err)
			defer c.Close()
			if got := peerName(t, c); got != "10.96.0.20:80" {
				t.Errorf("%s: the socket's peer is %s, want the service address", proto, got)
			}
		}
		unconnectedUDP(t, "10.96.0.20:80")
		mapped(t, "[::ffff:10.96.0.20]:80")
	})
	t.Run("spoofed source", func(t *testing.T) { n.spoof(a, b) })
	t.Run("datagrams follow a changed backend", func(t *testing.T) {
		n.follows(t, b, "udp4", "10.96.0.21:80", func(p pod) { api.put(slice("self", 8080, p)) }, a)
	})
	t.Run("names", func(t *testing.T) {
		wait(t, "the name of a service", func() error { return resolves(t, a.ns, "web.default.svc.cluster.local.", "10.96.0.20") })
	})
	t.Run("IPv6", func(t *testing.T) { nodeLifeIPv6(t, n, api, a, b) })
	t.Run("big data through a service", func(t *testing.T) { bulk(t, a.ns, b, "10.96.0.20:81", api) })

	t.Run("the agent goes and comes back without the API", func(t *testing.T) {
		doomed := n.pod(plugin, "doomed")
		streams := map[string]net.Conn{}
		for what, from := range map[string][2]string{
			"pod to pod": {a.ns, b.at(8080)}, "pod to cluster IP": {a.ns, "10.96.0.20:80"},
			"outside to node port": {n.outside, "192.168.50.1:30080"}, "pod to outside": {a.ns, "192.168.50.2:9000"},
		} {
			c, err := dial(t, from[0], "tcp4", from[1])
			must(t, err)
			defer c.Close()
			streams[what] = c
		}
		alive := func() {
			t.Helper()
			for what, c := range streams {
				if _, err := say(c, "still there?"); err != nil {
					t.Errorf("%s: the connection was cut: %v", what, err)
				}
			}
		}
		alive()
		n.stop()
		api.stop()
		alive()
		expect(t, a.ns, "tcp4", "10.96.0.20:80", "b", a.addr.String())
		n.del(plugin, doomed) // while nobody is there to do it
		n.start("cni")
		if got := n.network.Status().Pods; got != 2 {
			t.Errorf("%d pods are known, want 2: one was deleted while the agent was away", got)
		}
		if _, err := netlink.LinkByName(doomed.dev); err == nil {
			t.Errorf("interface %s of the deleted pod is left", doomed.dev)
		}
		alive()
		expect(t, a.ns, "tcp4", "10.96.0.20:80", "b", a.addr.String())
		n.api = nil // a pod of the cluster would have to wait for it
		c := n.pod(plugin, "c")
		echoTCP(t, c.ns, ":8080", "c")
		expect(t, a.ns, "tcp4", c.at(8080), "c", a.addr.String())
		n.del(plugin, c)
	})

	t.Run("pods go", func(t *testing.T) {
		n.del(plugin, a)
		n.del(plugin, a) // again
		n.del(plugin, b)
		if s := n.network.Status(); s.Pods != 0 {
			t.Errorf("%d pods are left", s.Pods)
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		n.stop()
		must(t, Cleanup(n.cfg))
		n.expectNothingLeft()
	})
}

// follows moves a Service from pod a to pod b, of which pod b and the node are clients, and back.
func (n *testNode) follows(t *testing.T, b pod, proto, addr string, move func(pod), a pod) {
	c, err := dial(t, b.ns, proto, addr)
	must(t, err)
	defer c.Close()
	sayTo(t, c, "a")
	var host net.Conn // chose its backend at connect, for good
	if n.cfg.HostCgroup != "" {
		host, err = dial(t, "", proto, addr)
		must(t, err)
		defer host.Close()
		sayTo(t, host, "a")
	}
	move(b)
	wait(t, "the datagrams to reach the new backend", func() error {
		got, err := say(c, "hello")
		if err == nil && !strings.HasPrefix(got, "b ") {
			err = fmt.Errorf("answered by %q", got)
		}
		return err
	})
	if host != nil {
		wait(t, "the host's socket to be aborted", func() error {
			// A socket without a peer refuses to write; one that was reading is aborted.
			_, err := say(host, "hello")
			if errors.Is(err, syscall.EDESTADDRREQ) || errors.Is(err, syscall.ECONNABORTED) {
				return nil
			}
			if err == nil {
				return errors.New("no error, want EDESTADDRREQ or ECONNABORTED")
			}
			return fmt.Errorf("want EDESTADDRREQ or ECONNABORTED: %w", err)
		})
		client := nodeIP
		if strings.HasSuffix(proto, "6") {
			client = nodeIP6
		}
		expect(t, "", proto, addr, "b", client.String())
	}
	move(a)
}

type pod struct {
	name, ns string
	dev      string // host side
	addr     netip.Addr
	addr6    netip.Addr
}

func (p pod) at(port int) string { return netip.AddrPortFrom(p.addr, uint16(port)).String() }

func (p pod) at6(port int) string { return netip.AddrPortFrom(p.addr6, uint16(port)).String() }

func buildPlugin(t *testing.T, dir string) string {
	t.Helper()
	if built := os.Getenv("BOTHY_TEST_BIN"); built != "" { // a machine without a compiler
		return filepath.Join(built, "bothy-cni")
	}
	out := filepath.Join(dir, "bothy-cni")
	cmd := exec.Command("go", "build", "-o", out, "github.com/bothy-os/bothy/cmd/bothy-cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, msg)
	}
	return out
}

// cni runs the plugin the way a container runtime does.
func (n *testNode) cni(plugin, command, id, ns string) ([]byte, error) {
	conflist, err := os.ReadFile(filepath.Join(n.cfg.RunDir, "cni", "net.d", "10-bothy.conflist"))
	if err != nil {
		return nil, err
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(conflist, &list); err != nil {
		return nil, err
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	if command == "ADD" {
		conf["runtimeConfig"] = map[string]any{"portMappings": n.ports}
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(plugin)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + ns, "CNI_IFNAME=eth0", "CNI_PATH=/nonexistent",
	}
	if n.api != nil {
		cmd.Env = append(cmd.Env, "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+id)
	}
	cmd.Stdin = strings.NewReader(string(stdin))
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return out, nil
}

func (n *testNode) pod(plugin, name string) pod {
	n.t.Helper()
	ns := n.makeNetns(name)
	if n.api != nil {
		n.api.put(podObject(name))
	}
	out, err := n.cni(plugin, "ADD", "container-"+name, ns)
	must(n.t, err)
	p := parseResult(n.t, out)
	p.name, p.ns = name, ns
	if !p.addr.IsValid() || !p.addr6.IsValid() {
		n.t.Fatalf("want an address of each family: %s", out)
	}
	if _, err := n.cni(plugin, "CHECK", "container-"+name, ns); err != nil {
		n.t.Fatal(err)
	}
	return p
}

// parseResult reads what the plugin printed.
func parseResult(t *testing.T, out []byte) pod {
	t.Helper()
	var result current.Result
	must(t, json.Unmarshal(out, &result))
	p := pod{dev: result.Interfaces[0].Name}
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		switch a = a.Unmap(); {
		case !ok:
			t.Fatalf("no address in %s", out)
		case a.Is4():
			p.addr = a
		default:
			p.addr6 = a
		}
	}
	return p
}

// podObject is what the API says of a pod that is being made: it has no address yet.
func podObject(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "container-" + name, Namespace: "default", Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "node"},
	}
}

func (n *testNode) del(plugin string, p pod) {
	n.t.Helper()
	if _, err := n.cni(plugin, "DEL", "container-"+p.name, p.ns); err != nil {
		n.t.Error(err)
	}
}

func expect(t *testing.T, ns, proto, addr, server, client string) {
	t.Helper()
	gotServer, gotClient, err := ask(t, ns, proto, addr)
	if err != nil {
		t.Errorf("%s %s: %v", proto, addr, err)
		return
	}
	if gotServer != server || gotClient != client {
		t.Errorf("%s %s: answered by %s, which saw %s; want %s and %s", proto, addr, gotServer, gotClient, server, client)
	}
}

func expectRefused(t *testing.T, ns, proto, addr string) {
	t.Helper()
	started := time.Now()
	_, _, err := ask(t, ns, proto, addr)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s %s: got %v, want connection refused", proto, addr, err)
	}
	if took := time.Since(started); took > patiently(time.Second) {
		t.Errorf("%s %s: refused after %s, want at once", proto, addr, took)
	}
}

func sayTo(t *testing.T, c net.Conn, server string) {
	t.Helper()
	got, err := say(c, "hello")
	if err != nil || !strings.HasPrefix(got, server+" ") {
		t.Errorf("answered by %q (%v), want %s", got, err, server)
	}
}

// peerName asks the kernel, not Go, which remembers what it was told.
func peerName(t *testing.T, c net.Conn) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	must(t, err)
	var name string
	must(t, raw.Control(func(fd uintptr) {
		sa, err := syscall.Getpeername(int(fd))
		if err != nil {
			t.Error(err)
			return
		}
		in4 := sa.(*syscall.SockaddrInet4)
		name = fmt.Sprintf("%s:%d", netip.AddrFrom4(in4.Addr), in4.Port)
	}))
	return name
}

func unconnectedUDP(t *testing.T, addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp4", ":0")
	must(t, err)
	defer c.Close()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	_, err = c.WriteTo([]byte("hello"), to)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patiently(3*time.Second))))
	buf := make([]byte, 100)
	k, from, err := c.ReadFrom(buf)
	must(t, err)
	if from.String() != addr || !strings.HasPrefix(string(buf[:k]), "b ") {
		t.Errorf("unconnected UDP: %q from %s, want an answer of b from %s", buf[:k], from, addr)
	}
}

// mapped speaks to an IPv4 address through an IPv6 socket, as many runtimes do.
func mapped(t *testing.T, addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(fd)
	ap := netip.MustParseAddrPort(addr)
	if err := syscall.Connect(fd, &syscall.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}); err != nil {
		t.Errorf("connect to %s: %v", addr, err)
	}
}

// spoof sends from pod a with an address that is not its own.
func (n *testNode) spoof(a, b pod) {
	t := n.t
	before := n.network.Status().Drops["spoofed-source"]
	_, err := in(t, a.ns, func() (struct{}, error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return struct{}{}, err
		}
		fake := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 7, 200), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.AddrAdd(lo, fake); err != nil {
			return struct{}{}, err
		}
		defer netlink.AddrDel(lo, fake)
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: fake.IP}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(b.at(8080))))
		if err != nil {
			return struct{}{}, err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return struct{}{}, err
	})
	must(t, err)
	if after := n.network.Status().Drops["spoofed-source"]; after != before+1 {
		t.Errorf("spoofed-source counter went from %d to %d, want one more", before, after)
	}
}

func resolves(t *testing.T, ns, name, want string) error {
	t.Helper()
	return resolvesTo(t, ns, dnsIP.String(), name, dns.TypeA, want)
}

func resolvesTo(t *testing.T, ns, server, name string, kind uint16, want string) error {
	t.Helper()
	c, err := dial(t, ns, "udp", net.JoinHostPort(server, "53"))
	if err != nil {
		return err
	}
	conn := &dns.Conn{Conn: c}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patiently(2 * time.Second))); err != nil {
		return err
	}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
		return err
	}
	msg, err := conn.ReadMsg()
	if err != nil {
		return err
	}
	for _, rr := range msg.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.String() == want {
			return nil
		}
		if a, ok := rr.(*dns.AAAA); ok && a.AAAA.String() == want {
			return nil
		}
	}
	return fmt.Errorf("answer %v", msg)
}

// bulk moves data that fills segmentation offload's super-packets both ways.
func bulk(t *testing.T, ns string, server pod, addr string, api *fakeAPI) {
	t.Helper()
	const size = 32 << 20
	l, err := in(t, server.ns, func() (net.Listener, error) { return net.Listen("tcp4", ":8081") })
	must(t, err)
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, err := io.Copy(io.Discard, r.Body)
		if err != nil || k != size {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Write(make([]byte, size))
	}))
	svc := service("bulk", "10.96.0.30", 0, 81, 8081)
	api.put(svc)
	api.put(slice("bulk", 8081, server))
	addr = "10.96.0.30:81"
	wait(t, "the bulk service", func() error {
		c, err := dial(t, ns, "tcp4", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return dial(t, ns, "tcp4", addr)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://"+addr, "application/octet-stream", strings.NewReader(strings.Repeat("x", size)))
	must(t, err)
	defer resp.Body.Close()
	k, err := io.Copy(io.Discard, resp.Body)
	if err != nil || k != size || resp.StatusCode != http.StatusOK {
		t.Errorf("status %s, %d bytes back (%v), want %d", resp.Status, k, err, size)
	}
	api.remove(svc)
}

func (n *testNode) expectNothingLeft() {
	t := n.t
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && name != "eth0" {
			t.Errorf("interface %s is left", name)
		}
	}
	err = filepath.WalkDir(n.cfg.BPFDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && path != n.cfg.BPFDir && !strings.HasSuffix(path, ".debug") {
			t.Errorf("pin %s is left", path)
		}
		return err
	})
	must(t, err)
	for _, path := range []string{n.cfg.socket(), n.cfg.runDir(), filepath.Join(n.cfg.RunDir, "cni", "net.d", "10-bothy.conflist")} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func service(name, ip string, nodePort, port, target int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	s.Spec.Type, s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ServiceTypeClusterIP, ip, []string{ip}
	if nodePort != 0 {
		s.Spec.Type = corev1.ServiceTypeNodePort
	}
	for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: strings.ToLower(string(proto)), Protocol: proto, Port: port, NodePort: nodePort,
		})
	}
	return s
}

func slice(name string, port int32, pods ...pod) *discoveryv1.EndpointSlice {
	var addrs []netip.Addr
	for _, p := range pods {
		addrs = append(addrs, p.addr)
	}
	return sliceOf(name, port, addrs...)
}

func sliceOf(name string, port int32, addrs ...netip.Addr) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name + "-1", Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		portName := strings.ToLower(string(proto))
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &portName, Protocol: &proto, Port: &port})
	}
	ready := true
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return s
}
