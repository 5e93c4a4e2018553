package netdata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

const (
	balancerIP  = "192.168.50.100"
	balancerIP6 = "fd00:50::100"
)

// TestServicesOnANode is what clients on the node's link see of Services and host ports.
func TestServicesOnANode(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	n.cfg.Pools = []v1alpha1.AddressPool{{Name: "site", Addresses: []string{balancerIP, balancerIP6}}}
	plugin := buildPlugin(t, n.dir)
	api := newFakeAPI(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.7.0/24", "fd00:244:0:7::/64"}}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	api.put(node)
	api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	api.kubeconfig(n.dir)
	n.start("cni", "services")

	n.ports = []any{
		map[string]any{"hostPort": 8088, "containerPort": 8080, "protocol": "tcp"},
		map[string]any{"hostPort": 8089, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1"},
	}
	a := n.pod(plugin, "a")
	n.ports = nil
	b := n.pod(plugin, "b")
	for _, p := range []pod{a, b} {
		echoTCP(t, p.ns, ":8080", p.name)
		echoUDP(t, p.ns, ":8080", p.name)
	}
	t.Run("host ports", func(t *testing.T) { n.hostPorts(t, plugin, a, b) })
	t.Run("load balancer", func(t *testing.T) { n.loadBalancer(t, api, a, b) })
	t.Run("affinity", func(t *testing.T) { n.affinity(t, api, a, b) })
	t.Run("nothing is left", func(t *testing.T) {
		n.del(plugin, a)
		n.del(plugin, b)
		if _, _, err := ask(t, n.outside, "tcp4", "192.168.50.1:8088"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the host port of a pod that is gone: %v", err)
		}
		n.stop()
		must(t, Cleanup(n.cfg))
		n.expectNothingLeft()
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: poolRouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil || len(routes) > 0 {
			t.Errorf("routes are left: %v, %v", routes, err)
		}
	})
}

func (n *testNode) hostPorts(t *testing.T, plugin string, a, b pod) {
	expect(t, n.outside, "tcp4", "192.168.50.1:8088", "a", outsideIP.String())
	expect(t, n.outside, "tcp6", "[fd00:50::1]:8088", "a", outsideIP6.String())
	expect(t, b.ns, "tcp4", "192.168.50.1:8088", "a", b.addr.String())
	expect(t, a.ns, "tcp4", "192.168.50.1:8088", "a", "169.254.1.1")
	if n.cfg.HostCgroup != "" {
		expect(t, "", "tcp4", "192.168.50.1:8088", "a", nodeIP.String())
		expect(t, "", "tcp4", "127.0.0.1:8089", "a", nodeIP.String())
	}
	expectRefused(t, n.outside, "tcp4", "192.168.50.1:8089")

	n.ports = []any{map[string]any{"hostPort": 8088, "containerPort": 8080, "protocol": "tcp"}}
	defer func() { n.ports = nil }()
	_, err := n.cni(plugin, "ADD", "container-rival", n.makeNetns("rival"))
	if err == nil || !strings.Contains(err.Error(), "0.0.0.0:8088/TCP: the port is taken by the pod with address "+a.addr.String()) {
		t.Errorf("a second pod with the same host port: %v", err)
	}
	if got := n.network.Status().Pods; got != 2 {
		t.Errorf("%d pods are left after a refused one", got)
	}
	// A new address of the node has the port as well, as soon as the kernel has it.
	dev, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.AddrAdd(dev, onLink(netip.MustParseAddr("192.168.50.9"))))
	wait(t, "the host port on a second address", func() error {
		_, _, err := ask(t, n.outside, "tcp4", "192.168.50.9:8088")
		return err
	})
}

func (n *testNode) loadBalancer(t *testing.T, api *fakeAPI, a, b pod) {
	svc := service("web", "10.96.0.40", 30040, 80, 8080)
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, "fd00:96::40")
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	endpoints := slice("web", 8080, a)
	api.put(endpoints)
	six := sliceOf("web", 8080, a.addr6)
	six.Name, six.AddressType = "web-6", discoveryv1.AddressTypeIPv6
	api.put(six)
	api.put(svc)
	wait(t, "the address to be answered", func() error {
		_, _, err := ask(t, n.outside, "tcp4", balancerIP+":80")
		return err
	})
	expect(t, n.outside, "udp4", balancerIP+":80", "a", outsideIP.String())
	expect(t, n.outside, "tcp6", "["+balancerIP6+"]:80", "a", outsideIP6.String())
	expect(t, b.ns, "tcp4", balancerIP+":80", "a", b.addr.String())
	if got := n.network.Status().Announced; len(got) != 2 {
		t.Errorf("announced are %v, want an address of each family", got)
	}
	// A port that the Service does not have is not sent in circles. The kernel limits how many errors
	// it sends to one client in a second.
	wait(t, "an unknown port to be answered with an error", func() error {
		if _, _, err := ask(t, n.outside, "tcp4", balancerIP+":81"); !errors.Is(err, syscall.EHOSTUNREACH) {
			return fmt.Errorf("got %w, want that the host is unreachable", err)
		}
		return nil
	})
	n.sourceRanges(t, api, "web")
	n.healthCheck(t, api, "web", a)
}

// change puts a changed copy of a Service.
func change(api *fakeAPI, name string, f func(*corev1.Service)) {
	api.mu.Lock()
	svc := api.objects["services"]["default/"+name].(*corev1.Service).DeepCopy()
	api.mu.Unlock()
	f(svc)
	api.put(svc)
}

func (n *testNode) sourceRanges(t *testing.T, api *fakeAPI, name string) {
	change(api, name, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"} })
	wait(t, "other clients to be shut out", func() error {
		c, err := in(t, n.outside, func() (net.Conn, error) { return net.DialTimeout("tcp4", balancerIP+":80", 300*time.Millisecond) })
		if err == nil {
			c.Close()
			return errors.New("still let in")
		}
		if n.network.Status().Drops["source-range"] == 0 {
			return fmt.Errorf("not counted: %w", err)
		}
		return nil
	})
	expect(t, n.outside, "tcp4", "192.168.50.1:30040", "a", outsideIP.String()) // the node port is open to all
	change(api, name, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.168.50.0/24"} })
	wait(t, "the client to be let in", func() error {
		_, _, err := ask(t, n.outside, "tcp4", balancerIP+":80")
		return err
	})
	change(api, name, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = nil })
}

func (n *testNode) healthCheck(t *testing.T, api *fakeAPI, name string, a pod) {
	change(api, name, func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyLocal, 30900
	})
	put := func(node string) {
		s := slice(name, 8080, a)
		for i := range s.Endpoints {
			s.Endpoints[i].NodeName = &node
		}
		api.put(s)
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return dial(t, n.outside, "tcp4", addr)
		},
	}}
	status := func(want int) func() error {
		return func() error {
			resp, err := client.Get("http://192.168.50.1:30900/")
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Errorf("status %s, want %d", resp.Status, want)
			}
			return nil
		}
	}
	put("node")
	wait(t, "the health check to say that there is a local endpoint", status(http.StatusOK))
	expect(t, n.outside, "tcp4", "192.168.50.1:30040", "a", outsideIP.String())
	put("elsewhere")
	wait(t, "the health check to say that there is none", status(http.StatusServiceUnavailable))
	before := n.network.Status().Drops["no-local-endpoint"]
	if _, err := in(t, n.outside, func() (net.Conn, error) { return net.DialTimeout("tcp4", "192.168.50.1:30040", 300*time.Millisecond) }); err == nil ||
		errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without local endpoint: %v, want silence", err)
	}
	if n.network.Status().Drops["no-local-endpoint"] == before {
		t.Error("the drop is not counted")
	}
}

func (n *testNode) affinity(t *testing.T, api *fakeAPI, a, b pod) {
	svc := service("sticky", "10.96.0.41", 30041, 80, 8080)
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	api.put(slice("sticky", 8080, a, b))
	api.put(svc)
	for from, addr := range map[string]string{n.outside: "192.168.50.1:30041", a.ns: "10.96.0.41:80", "": "10.96.0.41:80"} {
		if from == "" && n.cfg.HostCgroup == "" {
			continue
		}
		var first string
		wait(t, "the service", func() (err error) {
			first, _, err = ask(t, from, "tcp4", addr)
			return err
		})
		for range 12 {
			if got, _, err := ask(t, from, "tcp4", addr); err != nil || got != first {
				t.Errorf("%s: answered by %q (%v), before by %s", addr, got, err, first)
			}
		}
	}
}
