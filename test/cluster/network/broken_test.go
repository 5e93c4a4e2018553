package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// Whatever is asked of the CNI server, it answers with what is wrong, and nothing is made for
// it: no interface, no rows. The next pod is connected as ever.
func TestMalformedCNIRequests(t *testing.T) {
	node, _ := shared.Node(t)
	k := shared.Kubectl(t)
	socket, err := node.Path("/run/bothy/cni.sock")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := node.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const config = `{"cniVersion": "1.1.0", "name": "bothy", "type": "bothy-cni"}`
	request := func(command, id, netns, ifname, config string) string {
		return fmt.Sprintf(`{"command": %q, "containerID": %q, "netns": %q, "ifName": %q, "config": %s}`, command, id, netns, ifname, config)
	}
	links, rows := linksOf(t, ns), rowsOfPods(t, node)
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"nothing", "", []string{"JSON"}},
		{"no JSON", "ADD please", []string{"JSON"}},
		{"half a request", request("ADD", "c1", "/proc/1/ns/net", "eth0", config)[:40], []string{"JSON"}},
		{"another type", `{"command": ["ADD"]}`, []string{"JSON"}},
		{"too much", `{"command": "` + strings.Repeat("A", 1<<20) + `"}`, []string{"too large"}},
		{"no configuration", `{"command": "ADD", "containerID": "c1", "netns": "/proc/1/ns/net", "ifName": "eth0"}`, []string{"configuration"}},
		{"a configuration of another type", request("ADD", "c1", "/proc/1/ns/net", "eth0", `"none"`), []string{"configuration"}},
		{"unknown command", request("REPLACE", "c1", "/proc/1/ns/net", "eth0", config), []string{"CNI_COMMAND", "REPLACE"}},
		{"no container", request("ADD", "", "/proc/1/ns/net", "eth0", config), []string{"CNI_CONTAINERID"}},
		{"a container that is a path", request("ADD", "../../etc", "/proc/1/ns/net", "eth0", config), []string{"CNI_CONTAINERID"}},
		{"no interface", request("ADD", "c1", "/proc/1/ns/net", "", config), []string{"CNI_IFNAME"}},
		{"an interface that is too long", request("ADD", "c1", "/proc/1/ns/net", "interface-too-long", config), []string{"CNI_IFNAME"}},
		{"loopback", request("ADD", "c1", "/proc/1/ns/net", "lo", config), []string{"CNI_IFNAME"}},
		{"no namespace", request("ADD", "c1", "", "eth0", config), []string{"CNI_NETNS"}},
		{"a namespace that is not there", request("ADD", "c1", "/run/netns/nowhere", "eth0", config), []string{"namespace", "/run/netns/nowhere"}},
		{"a namespace that is a file", request("ADD", "c1", "/etc/hostname", "eth0", config), []string{"namespace"}},
		{"the node itself", request("ADD", "c1", "/proc/1/ns/net", "eth0", config), []string{"node's own"}},
		{"a version from the future", request("ADD", "c1", "/proc/1/ns/net", "eth0", `{"cniVersion": "9.0.0", "name": "bothy"}`), []string{"9.0.0"}},
		{"a check of what is not there", request("CHECK", "c1", "/proc/1/ns/net", "eth0", config), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := refusal(t, socket, c.body)
			t.Logf("answered: %s", text)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("the answer does not mention %q", want)
				}
			}
		})
	}
	if now := linksOf(t, ns); now != links {
		t.Errorf("interfaces before:\n%s\nafter:\n%s", links, now)
	}
	if now := rowsOfPods(t, node); now != rows {
		t.Errorf("rows of pods before: %s; after: %s", rows, now)
	}
	k.Run(t, "run", "after", "--image", "bothy.local/toolbox:1", "--restart", "Never", "--", "sleep")
	pod, _, err := k.OpenPod(t.Context(), node, "after", patience)
	if err != nil {
		t.Fatal(err)
	}
	pod.Close()
}

// refusal sends a request as the plugin does and returns the error in the answer.
func refusal(t *testing.T, socket, body string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Post("http://cni/cni", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Error *struct {
			Code         uint
			Msg, Details string
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		t.Fatalf("the answer is no JSON: %s", data)
	}
	if answer.Error == nil || answer.Error.Code == 0 || answer.Error.Msg == "" {
		t.Fatalf("the request was not refused: %s", data)
	}
	return answer.Error.Msg + ": " + answer.Error.Details
}

func linksOf(t *testing.T, ns *cluster.Namespace) string {
	t.Helper()
	var names []string
	err := ns.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			names = append(names, l.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func rowsOfPods(t *testing.T, node *cluster.Node) string {
	t.Helper()
	all := tables(t, node)
	return fmt.Sprintf("%d endpoints", all["endpoints"].Rows)
}

// Ranges that overlap are found before anything is made, and named.
func TestOverlappingRangesAreRefused(t *testing.T) {
	before, err := cluster.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	repo := cluster.NewRepo(t, false, map[string]string{
		"clusters/default/cluster.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: default\n" +
			"spec:\n  network: {podCIDRs: [10.96.0.0/12], serviceCIDRs: [10.96.0.0/16]}\n",
	})
	node := cluster.NodeFor(t, repo)
	r := node.Try(t, node.UpCommandArgs("--timeout", "30s")...)
	if r.Code != 1 {
		t.Errorf("exit code %d, want 1", r.Code)
	}
	for _, want := range []string{"clusters/default/cluster.yaml", "serviceCIDRs", "10.96.0.0/16 overlaps", "10.96.0.0/12"} {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("the error does not mention %q:\n%s", want, r.Stderr)
		}
	}
	before.NothingLeft(t, node)
}
