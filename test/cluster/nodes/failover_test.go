package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// failOver cuts the worker off, as a power cut would: the addresses that it announced answer by the other node as soon as
// Kubernetes believes that it is gone, and by the worker again when it is back.
func (c *two) failOver(t *testing.T) {
	addresses := c.balancers(t)
	defer c.k.Run(t, "delete", "service", "-l", "balanced")
	workers := c.announced(t, c.workerIP, addresses)
	t.Logf("the worker announces %v of %v", workers, addresses)
	if len(workers) == 0 || len(workers) == len(addresses) {
		t.Fatalf("%d of %d addresses are the worker's: nothing to be seen by a fail-over", len(workers), len(addresses))
	}

	port, err := netlink.LinkByName("bothy-" + c.worker.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(port); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	cluster.Eventually(t, patience, "the worker to be NotReady", func() error {
		status, err := c.k.Field(t.Context(), "node/"+c.worker.Name, `{.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && status == "True" {
			err = errors.New("it is Ready")
		}
		return err
	})
	noticed := time.Now()
	for _, address := range addresses {
		answers(t, net.JoinHostPort(address, "80"), "a")
	}
	t.Logf("Kubernetes gave the worker up %.1f s after its link was cut; %.1f s later all addresses answered", noticed.Sub(down).Seconds(), time.Since(noticed).Seconds())
	// The bridge floods what is for a port that is down, so an entry of before may go on to lead somewhere.
	c.forgetNeighbours(t)
	for _, address := range addresses {
		answers(t, net.JoinHostPort(address, "80"), "a")
	}
	if left := c.announced(t, c.workerIP, addresses); len(left) > 0 {
		t.Errorf("%v are still said to be at the worker", left)
	}

	if err := netlink.LinkSetUp(port); err != nil {
		t.Fatal(err)
	}
	c.k.Run(t, "wait", "--for=condition=Ready", "node/"+c.worker.Name, "--timeout", patience.String())
	cluster.Eventually(t, patience, "the addresses to be where they were", func() error {
		if got := c.announced(t, c.workerIP, addresses); !slices.Equal(got, workers) {
			return fmt.Errorf("the worker has %v, it had %v", got, workers)
		}
		return nil
	})
	for _, address := range addresses {
		answers(t, net.JoinHostPort(address, "80"), "a")
	}
}

// forgetNeighbours has this machine ask again where the addresses on the nodes' link are.
func (c *two) forgetNeighbours(t *testing.T) {
	t.Helper()
	link, err := netlink.LinkByName("bothy0-" + c.cp.Name)
	if err != nil {
		t.Fatal(err)
	}
	neighbours, err := netlink.NeighList(link.Attrs().Index, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		if n.IP.String() == c.workerIP || n.State&netlink.NUD_PERMANENT != 0 || n.State&netlink.NUD_NOARP != 0 {
			continue
		}
		if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatalf("forget where %s is: %v", n.IP, err)
		}
	}
}

// announced are the addresses that this machine has found at a node, by the hardware address that `bothy up` gives it.
func (c *two) announced(t *testing.T, node string, addresses []string) []string {
	t.Helper()
	link, err := netlink.LinkByName("bothy0-" + c.cp.Name)
	if err != nil {
		t.Fatal(err)
	}
	neighbours, err := netlink.NeighList(link.Attrs().Index, unix.AF_UNSPEC)
	if err != nil {
		t.Fatal(err)
	}
	at := map[netip.Addr]string{}
	for _, n := range neighbours {
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			at[a.Unmap()] = n.HardwareAddr.String()
		}
	}
	var out []string
	for _, a := range addresses {
		if mac := at[netip.MustParseAddr(a)]; mac != "" && mac == at[netip.MustParseAddr(node)] {
			out = append(out, a)
		}
	}
	return out
}
