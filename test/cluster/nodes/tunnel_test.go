package nodes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// vxlanOverhead is what wrapping takes of a packet where the nodes know each other by IPv4.
const vxlanOverhead = 50

// tunnelled has Git ask for tunnels while everything runs, sees that all that crossed before does so in them, and
// takes them away again.
func (c *two) tunnelled(t *testing.T) {
	before, err := c.cp.Process("kube")
	if err != nil {
		t.Fatal(err)
	}
	plain := c.mtus(t)
	c.encapsulate(t, "Always", "through a tunnel to")
	cluster.Eventually(t, patience, "the pods of both nodes to have room for the headers", func() error {
		if got := c.mtus(t); got[0] != plain[0]-vxlanOverhead || got[1] != plain[1]-vxlanOverhead {
			return fmt.Errorf("%v, they were %v", got, plain)
		}
		return nil
	})
	t.Run("pods reach pods and Services of the other node", c.crossing)
	t.Run("node ports answer on both nodes", c.nodePorts)
	t.Run("policies hold between nodes", c.policies)
	t.Run("long streams pass", c.bulk)
	t.Run("a pod that is new has room for the headers", func(t *testing.T) {
		c.k.Apply(t, pod("new", c.worker, "serve"))
		c.ready(t, "new")
		if got := c.mtu(t, c.worker, "new"); got != plain[1]-vxlanOverhead {
			t.Errorf("its MTU is %d, that of the others was %v without a tunnel", got, plain)
		}
		c.k.Run(t, "delete", "pod", "new")
	})

	c.encapsulate(t, "CrossSubnet", " via ")
	cluster.Eventually(t, patience, "the pods' MTU to be that of the uplink again", func() error {
		if got := c.mtus(t); !slices.Equal(got, plain) {
			return fmt.Errorf("%v, they were %v", got, plain)
		}
		return nil
	})
	t.Run("and as they are again", c.crossing)
	if after, err := c.cp.Process("kube"); err != nil || after.PID != before.PID {
		t.Errorf("Kubernetes was restarted for it: %v became %v, %v", before, after, err)
	}
}

// encapsulate commits the setting and waits until all routes of both nodes are of that kind.
func (c *two) encapsulate(t *testing.T, value, kind string) {
	t.Helper()
	c.repo.Write(t, "clusters/default/cluster.yaml", strings.Replace(settings, "  network:\n", "  network:\n    encapsulation: "+value+"\n", 1))
	c.repo.Push(t, "Encapsulation "+value, cluster.Signed)
	c.reconcile(t)
	for _, n := range []*cluster.Node{c.cp, c.worker} {
		cluster.Eventually(t, patience, "the routes of "+n.Name+" to be "+kind, func() error {
			st, err := n.ReadStatus(t.Context())
			if err != nil {
				return err
			}
			if st.Network == nil || len(st.Network.Nodes.Routes) != len(c.addresses(t, "a")) || len(st.Network.Nodes.Problems) > 0 {
				return fmt.Errorf("%+v", st.Network)
			}
			for _, r := range st.Network.Nodes.Routes {
				if !strings.Contains(r, kind) {
					return errors.New(r)
				}
			}
			return nil
		})
	}
}

// mtus are those of pods of either node, by the pods' own interfaces.
func (c *two) mtus(t *testing.T) []int {
	t.Helper()
	return []int{c.mtu(t, c.cp, "a"), c.mtu(t, c.worker, "b")}
}

func (c *two) mtu(t *testing.T, on *cluster.Node, pod string) (mtu int) {
	t.Helper()
	ns, _, err := c.k.OpenPod(t.Context(), on, pod, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() error {
		dev, err := net.InterfaceByName("eth0")
		if err == nil {
			mtu = dev.MTU
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mtu
}

// bulk sends lines that take many full packets each, and hears all of them again.
func (c *two) bulk(t *testing.T) {
	ns, _, err := c.k.OpenPod(t.Context(), c.cp, "a", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	vips := strings.Fields(c.k.Run(t, "get", "service", "b", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	var addresses []string
	for _, ip := range c.addresses(t, "b") {
		addresses = append(addresses, net.JoinHostPort(ip, "8081"))
	}
	for _, ip := range vips {
		addresses = append(addresses, net.JoinHostPort(ip, "81"))
	}
	for _, address := range addresses {
		if err := longLines(t.Context(), ns, address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func longLines(ctx context.Context, ns *cluster.Namespace, address string) error {
	const lines = 50
	line := strings.Repeat("x", 50_000)
	conn, err := ns.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for range lines {
		if _, err := fmt.Fprintln(conn, line); err != nil {
			return err
		}
		back, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasSuffix(strings.TrimSpace(back), " "+line) {
			return fmt.Errorf("%d bytes came back as %d others", len(line), len(back))
		}
	}
	return nil
}
