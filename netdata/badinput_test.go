package netdata

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestRequestsThatCannotBe: whatever the container runtime asks for, the answer is one error with its code of the CNI specification
// and a reason, and nothing of what could not be finished is left: no interface, row, record, route or address in use.
func TestRequestsThatCannotBe(t *testing.T) {
	if !inTestNode(t) {
		return
	}
	n := newTestNode(t)
	plugin := buildPlugin(t, n.dir)
	n.cfg.PodCIDRs = prefixes("10.244.7.0/29", "fd00:244:0:7::/64") // room for five
	n.start("cni")
	here := n.makeNetns("here")
	file := filepath.Join(n.dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	n.ports = []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
	first := n.pod(plugin, "first")
	n.ports = nil
	before := n.traces()
	port := func(m map[string]any) func(*attempt) {
		return func(a *attempt) { a.conf["runtimeConfig"] = map[string]any{"portMappings": []any{m}} }
	}

	for _, c := range []struct {
		name   string
		change func(a *attempt)
		code   uint
		want   string
	}{
		{"no container", func(a *attempt) { a.env["CNI_CONTAINERID"] = "" }, types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID"},
		{"a container that is a path", func(a *attempt) { a.env["CNI_CONTAINERID"] = "../x" }, types.ErrInvalidEnvironmentVariables, "../x"},
		{"an interface that is a path", func(a *attempt) { a.env["CNI_IFNAME"] = "a/b" }, types.ErrInvalidEnvironmentVariables, "interface name"},
		{"an interface that every pod has", func(a *attempt) { a.env["CNI_IFNAME"] = "lo" }, types.ErrInvalidEnvironmentVariables, "CNI_IFNAME"},
		{"no configuration", func(a *attempt) { a.stdin = "{" }, types.ErrDecodingFailure, ""},
		{"a version of the future", func(a *attempt) { a.conf["cniVersion"] = "9.9.9" }, types.ErrIncompatibleCNIVersion, "9.9.9"},
		{"no namespace", func(a *attempt) { a.env["CNI_NETNS"] = filepath.Join(n.dir, "nowhere") }, types.ErrInvalidNetNS, "nowhere"},
		{"a file for a namespace", func(a *attempt) { a.env["CNI_NETNS"] = file }, types.ErrInvalidNetNS, file},
		{"the node's own namespace", func(a *attempt) { a.env["CNI_NETNS"] = "/proc/thread-self/ns/net" }, types.ErrInvalidNetNS, "/proc/thread-self/ns/net"},
		{"an impossible host port", port(map[string]any{"hostPort": 70000, "containerPort": 80, "protocol": "tcp"}), 0, "70000"},
		{"an unknown protocol", port(map[string]any{"hostPort": 8081, "containerPort": 80, "protocol": "icmp"}), 0, "icmp"},
		{"a host port that is taken", port(map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}), types.ErrTryAgainLater, "8080"},
		{"an interface that is there", func(a *attempt) { a.env["CNI_NETNS"] = first.ns }, types.ErrInternal, "eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := n.attempt(here)
			c.change(a)
			failure := a.run(t, plugin)
			if failure == nil {
				t.Fatal("it was done")
			}
			if text := failure.Msg + ": " + failure.Details; c.code != 0 && failure.Code != c.code || !strings.Contains(text, c.want) {
				t.Errorf("error %d, %s; want %d and %q", failure.Code, text, c.code, c.want)
			}
			if after := n.traces(); !slices.Equal(after, before) {
				t.Errorf("left behind: %v, before: %v", after, before)
			}
		})
	}
	if _, err := n.cni(plugin, "CHECK", "container-first", first.ns); err != nil {
		t.Errorf("the pod that was there has suffered: %v", err)
	}

	t.Run("no address left", func(t *testing.T) {
		var all []pod
		for i := range 4 {
			all = append(all, n.pod(plugin, fmt.Sprintf("more%d", i)))
		}
		full := n.traces()
		a := n.attempt(here)
		failure := a.run(t, plugin)
		if failure == nil || failure.Code != types.ErrTryAgainLater || !strings.Contains(failure.Msg, "10.244.7.0/29") || failure.Details == "" {
			t.Errorf("got %+v, want to be told which range is exhausted, and what to do", failure)
		}
		if after := n.traces(); !slices.Equal(after, full) {
			t.Errorf("left behind: %v, before: %v", after, full)
		}
		n.del(plugin, all[0])
		if failure := a.run(t, plugin); failure != nil {
			t.Errorf("with an address that is free again: %+v", failure)
		}
	})
	n.stop()
	must(t, Cleanup(n.cfg))
	n.expectNothingLeft()
}

// attempt is a request of the container runtime.
type attempt struct {
	env   map[string]string
	conf  map[string]any
	stdin string // instead of conf
}

// attempt is one that would succeed.
func (n *testNode) attempt(ns string) *attempt {
	var list struct {
		CNIVersion string
		Name       string
		Plugins    []map[string]any
	}
	data, err := os.ReadFile(filepath.Join(n.cfg.RunDir, "cni", "net.d", "10-bothy.conflist"))
	must(n.t, err)
	must(n.t, json.Unmarshal(data, &list))
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	return &attempt{
		env:  map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "new", "CNI_NETNS": ns, "CNI_IFNAME": "eth0", "CNI_PATH": "/nonexistent"},
		conf: conf,
	}
}

// run returns nil if it succeeded. What the plugin prints otherwise is one error.
func (a *attempt) run(t *testing.T, plugin string) *types.Error {
	t.Helper()
	stdin := a.stdin
	if stdin == "" {
		data, err := json.Marshal(a.conf)
		must(t, err)
		stdin = string(data)
	}
	cmd := exec.Command(plugin)
	for k, v := range a.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err == nil {
		return nil
	}
	failure := &types.Error{}
	if err := json.Unmarshal(out, failure); err != nil {
		t.Fatalf("the plugin printed %q, which is no error of the CNI specification: %v", out, err)
	}
	return failure
}

// traces are all that pods leave on a node.
func (n *testNode) traces() []string {
	t := n.t
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		out = append(out, "interface "+l.Attrs().Name)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteList(nil, family)
		must(t, err)
		for _, r := range routes {
			if r.Dst != nil {
				out = append(out, "route "+r.Dst.String())
			}
		}
	}
	tables := n.network.kernel.Load().Tables
	endpoints, err := tables.Endpoints()
	must(t, err)
	for _, e := range endpoints {
		out = append(out, "endpoint "+e.Addr.String())
	}
	ports, err := tables.HostPorts()
	must(t, err)
	for _, p := range ports {
		out = append(out, fmt.Sprintf("host port %v", p))
	}
	for _, dir := range []string{"pods", "deleted"} {
		entries, err := os.ReadDir(filepath.Join(n.cfg.runDir(), dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, dir+"/"+e.Name())
		}
	}
	pins, err := os.ReadDir(filepath.Join(n.cfg.BPFDir, "links"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, p := range pins {
		out = append(out, "link "+p.Name())
	}
	slices.Sort(out)
	return slices.DeleteFunc(out, func(s string) bool { return strings.Contains(s, netip.MustParsePrefix("ff00::/8").String()) })
}
