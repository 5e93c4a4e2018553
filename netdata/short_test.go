package netdata

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestShortConnections opens and closes many connections, one after the other. Each must be over
// without one segment sent twice: a lost one is found out after milliseconds, in which there
// could have been a hundred others. The client has so few ports that it uses each again while the
// server still remembers the connection before.
func TestShortConnections(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	plugin := buildPlugin(t, n.dir)
	n.api = newFakeAPI(t)
	n.cfg.PodCIDRs = testPodCIDRs
	n.api.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	n.api.kubeconfig(n.dir)
	n.start("cni", "policy", "services")
	a, b := n.pod(plugin, "a"), n.pod(plugin, "b")
	n.api.put(service("web", "10.96.0.20", 0, 80, 8080))
	n.api.put(slice("web", 8080, b))
	answerOnce(t, b.ns, ":8080")
	wait(t, "the service", func() error { return askOnce(t, a.ns, "10.96.0.20:80") })
	ways := map[string]string{"pod": b.at(8080), "Service": "10.96.0.20:80", "IPv6": b.at6(8080)}
	ports := 20000
	for _, policy := range []bool{false, true} {
		if policy {
			n.enforce(policyOf("ingress-from-a", "b", nil, from("a")))
			n.enforce(egressOf("egress-to-b", "a", nil, from("b")))
		}
		for way, addr := range ways {
			t.Run(fmt.Sprintf("%s, policy %t", way, policy), func(t *testing.T) {
				// By another way they are another connection, which the server would take for the old one.
				ports += 1000
				onlyPorts(t, a.ns, ports, ports+399)
				before := retransmitted(t, a.ns) + retransmitted(t, b.ns)
				var longest time.Duration
				for range 1000 {
					started := time.Now()
					if err := askOnce(t, a.ns, addr); err != nil {
						t.Fatal(err)
					}
					longest = max(longest, time.Since(started))
				}
				if after := retransmitted(t, a.ns) + retransmitted(t, b.ns); after-before > spurious() {
					t.Errorf("%d segments were sent again, drops %v", after-before, n.network.Status().Drops)
				}
				t.Logf("the longest connection took %s", longest)
			})
		}
	}
}

// spurious is how many of thousands of segments may be sent again though none was lost: an emulated machine at times
// stands still for longer than TCP waits for an answer. A way that loses segments loses one with most connections.
func spurious() int {
	if patiently(time.Second) > time.Second {
		return 10
	}
	return 0
}

// onlyPorts bounds the source ports of a namespace.
func onlyPorts(t *testing.T, ns string, first, last int) {
	t.Helper()
	_, err := in(t, ns, func() (struct{}, error) {
		return struct{}{}, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", first, last), 0)
	})
	must(t, err)
}

// answerOnce closes each connection after one answer.
func answerOnce(t *testing.T, ns, addr string) {
	l, err := in(t, ns, func() (net.Listener, error) { return net.Listen("tcp", addr) })
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				_, _ = c.Write([]byte("!")) // the client misses it
			}
			c.Close()
		}
	}()
}

func askOnce(t *testing.T, ns, addr string) error {
	c, err := dial(t, ns, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patiently(3 * time.Second))); err != nil {
		return err
	}
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	buf := make([]byte, 2)
	if k, err := c.Read(buf); err != nil || k != 1 {
		return fmt.Errorf("%d bytes of answer: %w", k, err)
	}
	if k, err := c.Read(buf); k != 0 || err == nil {
		return fmt.Errorf("%d bytes after the end", k)
	}
	return nil
}

// retransmitted is what TCP in a namespace has sent again.
func retransmitted(t *testing.T, ns string) int {
	t.Helper()
	data, err := in(t, ns, func() ([]byte, error) { return os.ReadFile("/proc/thread-self/net/snmp") })
	must(t, err)
	var names []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RetransSegs" {
				k, err := strconv.Atoi(fields[i])
				must(t, err)
				return k
			}
		}
	}
	t.Fatal("there is no count of retransmissions")
	return 0
}
