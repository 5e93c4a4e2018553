package workloads

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// A Service of both address families answers in both: by its cluster IPs and names from a pod, and
// by its node port from outside the node.
func TestServiceOfBothFamilies(t *testing.T) {
	t.Parallel()
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err != nil || strings.TrimSpace(string(off)) != "0" {
		t.Skip("this machine has no IPv6")
	}
	k := shared.Kubectl(t)
	startPod(t, k, "both", "serve")
	startPod(t, k, "asker", "sleep")
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both"}, "spec": {
		"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "both"},
		"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}`)

	var svc struct {
		Spec struct {
			ClusterIPs []string
			Ports      []struct{ NodePort int }
		}
	}
	if err := k.JSON(t.Context(), &svc, "service", "both"); err != nil {
		t.Fatal(err)
	}
	var node struct {
		Items []struct {
			Status struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	if err := k.JSON(t.Context(), &node, "nodes"); err != nil {
		t.Fatal(err)
	}
	var addrs []netip.Addr
	for _, a := range node.Items[0].Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) != 2 || len(svc.Spec.ClusterIPs) != 2 {
		t.Fatalf("the node has the addresses %v, the Service %v; want one of each family", addrs, svc.Spec.ClusterIPs)
	}

	for i, ip := range svc.Spec.ClusterIPs {
		url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String() + "/"
		cluster.Eventually(t, 15*time.Second, url+" to answer a pod", func() error {
			out, err := k.Exec(t.Context(), "asker", "/toolbox", "get", url)
			return answeredBy("both", out, err)
		})
		url = "http://" + netip.AddrPortFrom(addrs[i], uint16(svc.Spec.Ports[0].NodePort)).String() + "/"
		cluster.Eventually(t, 15*time.Second, url+" to answer from outside", func() error {
			out, err := httpGet(t.Context(), url)
			return answeredBy("both", out, err)
		})
	}
	cluster.Eventually(t, 15*time.Second, "the name to have both addresses", func() error {
		out, err := k.Exec(t.Context(), "asker", "/toolbox", "resolve", "both")
		for _, ip := range svc.Spec.ClusterIPs {
			if !strings.Contains(out, ip) {
				err = errors.Join(err, fmt.Errorf("%s is not among %q", ip, strings.Fields(out)))
			}
		}
		return err
	})
}

func answeredBy(want, out string, err error) error {
	if err == nil && !strings.Contains(out, `"`+want+`"`) {
		err = fmt.Errorf("the answer is %q", out)
	}
	return err
}
