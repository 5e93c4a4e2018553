package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// The story of a namespace that is closed, and then opened for whom it is meant.
func TestClosedAndOpened(t *testing.T) {
	k := shared.Kubectl(t)
	k.Apply(t, policy("closed", "server", `"policyTypes": ["Ingress"]`))
	k.Apply(t, server("server"))
	k.Apply(t, pod("client", "", "sleep"))
	k.Apply(t, pod("stranger", "", "sleep"))
	ready(t, k, "server", "client", "stranger") // the server's probes pass, although nobody else gets in
	addr := address(t, k, "server")
	echo := addr + ":8081"
	reaches(t, k, "client", echo, false)

	k.Apply(t, policy("open", "server", `"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "echo"}]}]`))
	reaches(t, k, "client", echo, true)
	reaches(t, k, "stranger", echo, false)
	reaches(t, k, "client", addr+":8080", false) // another port than the one of that name

	k.Apply(t, policy("inside", "stranger", `"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]`))
	reaches(t, k, "stranger", address(t, k, "client")+":8081", false)
	cluster.Eventually(t, patience, "names to be resolved under any policy", func() error {
		_, err := k.Exec(t.Context(), "stranger", "/toolbox", "resolve", "kubernetes.default.svc.cluster.local")
		return err
	})

	k.Run(t, "delete", "networkpolicy", "--all")
	reaches(t, k, "stranger", echo, true)
	if got := k.Run(t, "get", "pod", "server", "-o", "jsonpath={.status.containerStatuses[0].restartCount}{.status.conditions[?(@.type=='Ready')].status}"); got != "0True" {
		t.Errorf("restarts and readiness of the server are %s: a probe was held back", got)
	}
}

// A stream that policy no longer allows ends at once: by a reset of its next packet, or because its sockets are destroyed,
// whichever comes first.
func TestRevocationEndsAStream(t *testing.T) {
	k := shared.Kubectl(t)
	k.Apply(t, server("server"))
	ready(t, k, "server")
	k.Apply(t, pod("client", "", "stream", "-interval", "20ms", address(t, k, "server")+":8083"))
	cluster.Eventually(t, patience, "the stream to run", func() error {
		out, err := k.Output(t.Context(), "logs", "client")
		if err == nil && !strings.Contains(out, "connected") {
			err = fmt.Errorf("log %q", out)
		}
		return err
	})
	k.Apply(t, policy("closed", "server", `"policyTypes": ["Ingress"]`))
	cluster.Eventually(t, patience, "the stream to be ended", func() error {
		out, err := k.Output(t.Context(), "logs", "client")
		if err == nil && !strings.Contains(out, "connection reset by peer") && !strings.Contains(out, "software caused connection abort") {
			err = fmt.Errorf("log %q", out)
		}
		return err
	})
}

// A pod that floods from its first instruction on sends nothing under a policy that does not let
// it; and one that is let is heard, so the listening is able to hear.
func TestNothingLeaves(t *testing.T) {
	k := shared.Kubectl(t)
	k.Apply(t, pod("listener", "", "hear", ":7000"))
	ready(t, k, "listener")
	to := address(t, k, "listener") + ":7000"
	const rounds = 5
	var silenced []string
	for i := range rounds {
		name := fmt.Sprintf("silenced-%d", i)
		silenced = append(silenced, name)
		// In one call: the policy is as young as the pod.
		k.Apply(t, policy(name, name, `"policyTypes": ["Egress"]`)+"\n---\n"+pod(name, "", "flood", to))
	}
	k.Apply(t, pod("allowed", "", "flood", to))
	for _, name := range append(silenced, "allowed") {
		cluster.Eventually(t, patience, name+" to flood", func() error {
			out, err := k.Output(t.Context(), "logs", name)
			if err == nil && !strings.Contains(out, "sent ") {
				err = fmt.Errorf("log %q", out)
			}
			return err
		})
	}
	heard := k.Run(t, "logs", "listener")
	if !strings.Contains(heard, "heard "+address(t, k, "allowed")+"\n") {
		t.Errorf("the pod without policy was not heard: the test would not see a leak; log %q", heard)
	}
	for _, name := range silenced {
		if addr := address(t, k, name); strings.Contains(heard, "heard "+addr+"\n") {
			t.Errorf("%s (%s) was heard", name, addr)
		}
	}
}
