package cli

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/netdata"
	"github.com/bothy-os/bothy/netdata/dns"
	"github.com/bothy-os/bothy/netdata/flows"
	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/policy"
	"github.com/bothy-os/bothy/netdata/services"
)

func peer(addr string, port uint16, name flows.Name) flows.Peer {
	return flows.Peer{Addr: netip.MustParseAddr(addr), Port: port, Name: name}
}

var (
	web = peer("10.244.1.2", 41234, flows.Name{Namespace: "shop", Pod: "web-0", Node: "n1"})
	db  = peer("10.244.1.3", 5432, flows.Name{Namespace: "shop", Pod: "db-0", Node: "n1"})
	vip = peer("10.96.0.20", 5432, flows.Name{Service: "shop/db"})
)

func someFlows() []*flows.Flow {
	at := time.Date(2026, 1, 2, 15, 4, 5, 678_000_000, time.Local)
	return []*flows.Flow{
		{Time: at, Verdict: flows.Forwarded, What: flows.Opened, Protocol: "TCP", From: web, To: db, Asked: &vip, TCPFlags: "SYN"},
		{Time: at, Verdict: flows.Dropped, What: flows.Denied, Reason: "policy-ingress", Hook: "from-pod", Protocol: "UDP", From: web, To: peer("192.0.2.7", 53, flows.Name{})},
		{Time: at, Verdict: flows.Refused, What: flows.Denied, Reason: "refused-no-endpoint", Hook: "from-pod", Protocol: "TCP", From: web, To: vip, Asked: &vip, TCPFlags: "SYN"},
		{Time: at, Verdict: flows.Forwarded, What: flows.Reset, Protocol: "TCP", From: web, To: peer("192.0.2.7", 443, flows.Name{Host: "example.org"}), TCPFlags: "RST"},
	}
}

func TestFlowsAsText(t *testing.T) {
	var out bytes.Buffer
	p := newFlowPrinter(&out, style{}, false)
	for _, f := range someFlows() {
		if err := p.print(&agent.FlowLine{Flow: f}); err != nil {
			t.Fatal(err)
		}
	}
	want := `15:04:05.678 forwarded TCP  shop/web-0:41234 -> shop/db-0:5432 via service shop/db:5432
15:04:05.678 dropped   UDP  shop/web-0:41234 -> 192.0.2.7:53 policy-ingress (from-pod)
15:04:05.678 refused   TCP  shop/web-0:41234 -> service shop/db:5432 refused-no-endpoint (from-pod) SYN
15:04:05.678 forwarded TCP  shop/web-0:41234 -> example.org:443 reset
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := p.summary(); got != "4 flows seen, none lost" {
		t.Errorf("summary %q", got)
	}
	if err := p.print(&agent.FlowLine{Lost: &flows.Lost{Kernel: 3, Watcher: 4}}); err != nil {
		t.Fatal(err)
	}
	if got := p.summary(); !strings.HasPrefix(got, "4 flows seen, 7 lost: there were too many") {
		t.Errorf("summary %q", got)
	}
}

func TestFlowsAsJSON(t *testing.T) {
	var out bytes.Buffer
	p := newFlowPrinter(&out, style{}, true)
	if err := p.print(&agent.FlowLine{Lost: &flows.Lost{}}); err != nil {
		t.Fatal(err)
	}
	for _, f := range someFlows() {
		if err := p.print(&agent.FlowLine{Flow: f}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines for 4 flows: %s", len(lines), out.String())
	}
	var f flows.Flow
	if err := json.Unmarshal([]byte(lines[1]), &f); err != nil || f.Reason != "policy-ingress" || f.From.Pod != "web-0" {
		t.Errorf("%s: %v", lines[1], err)
	}
}

func TestFlowsRefusesFiltersBeforeItAsks(t *testing.T) {
	for want, args := range map[string][]string{
		`--verdict "lost"`:               {"--verdict", "lost"},
		`--port "http"`:                  {"--port", "http"},
		`--reason "x" is not known`:      {"--reason", "x"},
		`--proto "CARRIER-PIGEON"`:       {"--proto", "carrier-pigeon"},
		"unknown command \"web-0\"":      {"web-0"},
		"unknown flag: --no-such-filter": {"--no-such-filter"},
	} {
		_, err := run(t, append([]string{"flows", "--state", t.TempDir()}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

func TestFlowTable(t *testing.T) {
	var out bytes.Buffer
	err := printFlowTable(&out, style{}, []flows.Entry{
		{Protocol: "TCP", From: web, To: db, Asked: &vip, State: maps.FlowEstablished, Idle: 90 * time.Second},
		{Protocol: "TCP", From: web, To: peer("192.0.2.7", 443, flows.Name{Host: "example.org"}), Masquerade: "192.168.50.1:50000", State: maps.FlowNew},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `PROTOCOL  FROM              TO               VIA                   STATE        IDLE   OUTSIDE AS
TCP       shop/web-0:41234  shop/db-0:5432   service shop/db:5432  established  1m30s  -
TCP       shop/web-0:41234  example.org:443  -                     new          0s     192.168.50.1:50000
2 flows
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestNetworkStatus(t *testing.T) {
	r := &netdata.Report{
		Status: netdata.Status{
			Backend: "tcx", Attached: []string{"cgroup-connect4", "eth0-egress", "eth0-ingress"},
			PodRanges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}, Pods: 2,
			Policy:   policy.Status{Synced: true, Policies: 2, Isolated: 1},
			Services: services.Status{Synced: true, Services: 3, Frontends: 5, Backends: 4},
			DNS:      dns.Status{Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, ClusterNames: true, Upstreams: []string{"192.0.2.53:53"}},
		},
		NodeIPs: []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd00:50::1")}, Uplink: "eth0", MTU: 1500, PolicyRevision: 7,
		Tables: []maps.Fill{{Table: "ct", Entries: 60000, Max: 65536, Bytes: 4 << 20}, {Table: "slots", Entries: -1, Max: 1000, Bytes: 8000}},
		DropDetails: []netdata.DropReport{
			{Reason: "spoofed-source", Direction: "from-pod", Count: 3, Explanation: flows.Explanation{What: "It lied.", Do: "Look at it."}},
			{Reason: "spoofed-source", Direction: "to-pod", Count: 1, Explanation: flows.Explanation{What: "It lied.", Do: "Look at it."}},
		},
		Problems: []netdata.Problem{{Subject: "table ct", What: "60000 of 65536 rows are in use.", Do: "See who."}},
	}
	var out bytes.Buffer
	if err := printNetwork(&out, style{}, r); err != nil {
		t.Fatal(err)
	}
	want := `backend     tcx, 3 attachments
uplink      eth0, 192.168.50.1, fd00:50::1, MTU 1500
pods        2, addresses of 10.244.0.0/24, fd00:1::/64
services    3, with 5 addresses and 4 backends, in step with the API
policies    2, isolating 1 addresses of pods here, revision 7, in step with the API
flows       0 when last swept
dns         10.96.0.10, names of the cluster answered, others by 192.0.2.53:53
problem     table ct: 60000 of 65536 rows are in use.
            See who.

DROPPED OR REFUSED  WHERE     COUNT
spoofed-source      from-pod  3
spoofed-source      to-pod    1

spoofed-source: It lied.
  Look at it.

TABLE  ROWS   OF     FULL  MEMORY
ct     60000  65536  91 %  4096 KiB
slots  -      1000   -     8 KiB

ATTACHED TO          AT
eth0                 egress, ingress
sockets of the node  connect4
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestTablesOfTheDataplane(t *testing.T) {
	rows := serviceRows([]netdata.ServiceEntry{
		{Service: "shop/db", Address: netip.MustParseAddrPort("10.96.0.20:5432"), Protocol: "TCP", Affinity: time.Hour, Backends: []flows.Peer{db}},
		{Address: netip.MustParseAddrPort("10.96.0.21:80"), Protocol: "UDP"},
	})
	if got := strings.Join(rows[1], "|"); got != "shop/db|10.96.0.20:5432|TCP|1h0m0s|shop/db-0:5432" {
		t.Errorf("row %s", got)
	}
	if got := strings.Join(rows[2], "|"); got != "-|10.96.0.21:80|UDP|-|none: refused" {
		t.Errorf("row %s", got)
	}
	rows = endpointRows([]netdata.EndpointEntry{{Peer: web, Interface: "bothy1", MAC: "02:0b:00:00:00:01", Identity: 5}})
	if got := strings.Join(rows[1], "|"); got != "shop/web-0|10.244.1.2|bothy1|02:0b:00:00:00:01|5" {
		t.Errorf("row %s", got)
	}
}

func TestNetworkMetricsAreThoseOfTheNetwork(t *testing.T) {
	var out bytes.Buffer
	in := "# HELP bothy_net_pods Pods.\n# TYPE bothy_net_pods gauge\nbothy_net_pods 2\n# HELP go_threads Threads.\ngo_threads 7\ncoredns_dns_requests_total{type=\"A\"} 3\n"
	if err := networkMetrics(&out, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 4 || strings.Contains(out.String(), "go_threads") {
		t.Errorf("%s", out.String())
	}
}
