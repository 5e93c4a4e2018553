package flows

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// reasons of which the tests know the numbers.
const (
	spoofed    = maps.DropReason(2)
	noEndpoint = maps.DropReason(9)
)

func TestDescribe(t *testing.T) {
	boot := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name                             string
		event                            maps.Event
		verdict                          Verdict
		what, from, to, asked, why, hook string
	}{
		{
			"a flow between pods", newFlow("10.244.1.2:1000", "10.244.1.3:80", ""),
			Forwarded, Opened, "shop/web-0:1000", "shop/db-0:80", "", "", "",
		},
		{
			"a flow to a Service", newFlow("10.244.1.2:1000", "10.244.1.3:8080", "10.96.0.20:5432"),
			Forwarded, Opened, "shop/web-0:1000", "shop/db-0:8080", "service shop/db:5432", "", "",
		},
		{
			"a flow to a node port", newFlow("198.51.100.4:1000", "10.244.1.3:8080", "192.168.50.1:30080"),
			Forwarded, Opened, "198.51.100.4:1000", "shop/db-0:8080", "service shop/web:30080", "", "",
		},
		{
			"a flow to a name outside", newFlow("10.244.1.2:1000", "192.0.2.7:443", ""),
			Forwarded, Opened, "shop/web-0:1000", "example.org:443", "", "", "",
		},
		{
			"a dropped packet", denied(maps.EventDrop, spoofed, maps.HookFromPod, "10.244.9.9:1000", "10.244.1.3:80"),
			Dropped, Denied, "10.244.9.9:1000", "shop/db-0:80", "", "spoofed-source", "from-pod",
		},
		{
			"a refused connection", denied(maps.EventRefuse, noEndpoint, maps.HookFromPod, "10.244.1.2:1000", "10.96.0.20:5432"),
			Refused, Denied, "shop/web-0:1000", "service shop/db:5432", "service shop/db:5432", "refused-no-endpoint", "from-pod",
		},
		{
			"a socket of the node",
			maps.Event{
				Kind: maps.EventConnect, Hook: maps.HookSocket, Asked: ap("10.96.0.20:5432"),
				Tuple: maps.Tuple{Src: ap("192.168.50.1:0"), Dst: ap("10.244.1.3:8080"), Proto: maps.TCP},
			},
			Forwarded, Connected, "node n1", "shop/db-0:8080", "service shop/db:5432", "", "socket",
		},
		{
			"a closed connection",
			maps.Event{Kind: maps.EventEnd, Flow: maps.FlowFinOrig | maps.FlowFinReply, Tuple: newFlow("10.244.1.2:1", "10.244.1.3:2", "").Tuple},
			Forwarded, Closed, "shop/web-0:1", "shop/db-0:2", "", "", "",
		},
		{
			"a reset connection",
			maps.Event{Kind: maps.EventEnd, Flow: maps.FlowReset, Tuple: newFlow("10.244.1.2:1", "10.244.1.3:2", "").Tuple},
			Forwarded, Reset, "shop/web-0:1", "shop/db-0:2", "", "", "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.event.Time = 3 * time.Second
			f := describe(&tc.event, boot, fakeNames{})
			asked := ""
			if f.Asked != nil {
				asked = f.Asked.String()
			}
			got := []string{string(f.Verdict), f.What, f.From.String(), f.To.String(), asked, f.Reason, f.Hook}
			want := []string{string(tc.verdict), tc.what, tc.from, tc.to, tc.asked, tc.why, tc.hook}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("got %q, want %q", got, want)
					break
				}
			}
			if !f.Time.Equal(boot.Add(3 * time.Second)) {
				t.Errorf("time is %s", f.Time)
			}
		})
	}
}

func TestWireNames(t *testing.T) {
	if got := tcpFlags(0x12); got != "SYN,ACK" {
		t.Errorf("flags are %q", got)
	}
	for p, want := range map[maps.Protocol]string{6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6", 47: "47"} {
		if got := protocol(p); got != want {
			t.Errorf("protocol %d is %q, want %q", p, got, want)
		}
	}
}

// A reason that operators see without an explanation is a question they cannot answer.
func TestEveryReasonIsExplained(t *testing.T) {
	manual, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Reasons() {
		e := Explain(r)
		if e.What == "" || !strings.Contains(string(manual), "| `"+r+"` | "+e.What+" |") {
			t.Errorf("reason %q is not explained, or not the same, in reasons.go and docs/network.md", r)
		}
	}
	if Explain("none-such") != (Explanation{}) {
		t.Error("an unknown reason is explained")
	}
}
