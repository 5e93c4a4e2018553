package gitops

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// Settings of the control plane come from Git and change while the node runs:
// the process that uses them is restarted, containers are not.
func TestClusterSettingsComeFromGit(t *testing.T) {
	s := newSite(t, false)
	before, err := s.kube.In("site").Pods(t.Context())
	if err != nil || len(before) != 1 {
		t.Fatalf("one pod was expected: %v, %v", before, err)
	}
	s.repo.Write(t, "clusters/default/cluster.yaml", clusterFile+"  node: {maxPods: 42}\n  controlPlane: {extraSANs: [hut.example.org]}\n")
	s.push(t, "Fewer pods, one more name")
	cluster.Eventually(t, 2*patience, "the node to offer room for 42 pods", func() error {
		got, err := s.kube.Field(t.Context(), "node/"+s.node.Name, "{.status.capacity.pods}")
		if err == nil && got != "42" {
			err = errStill
		}
		return err
	})
	s.node.WaitServing(t, patience)
	if _, err := s.kube.Output(t.Context(), "--tls-server-name=hut.example.org", "get", "--raw", "/readyz"); err != nil {
		t.Errorf("the API server's certificate lacks the new name: %v", err)
	}
	after, err := s.kube.In("site").Pods(t.Context())
	if err != nil || len(after) != 1 {
		t.Fatalf("one pod was expected: %v, %v", after, err)
	}
	if a, b := before[0].Status.ContainerStatuses[0], after[0].Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != b.RestartCount {
		t.Errorf("the container was restarted: %s became %s", a.ContainerID, b.ContainerID)
	}

	// What only the agent makes use of costs the API nothing.
	kube, err := s.node.Process("kube")
	if err != nil {
		t.Fatal(err)
	}
	settings := clusterFile + "  node: {maxPods: 42}\n  controlPlane: {extraSANs: [hut.example.org]}\n"
	s.repo.Write(t, "clusters/default/cluster.yaml", settings+"  network: {loadBalancer: {pools: [{name: lan, addresses: [192.0.2.16/28]}]}}\n")
	s.push(t, "Addresses for load balancers")
	balanced(t, s)
	if now, err := s.node.Process("kube"); err != nil || now.PID != kube.PID {
		t.Errorf("a pool of addresses has cost a restart of Kubernetes: process %+v became %+v, %v", kube, now, err)
	}

	// A cluster cannot be renumbered; saying so must not harm it.
	s.repo.Write(t, "clusters/default/cluster.yaml", clusterFile+"  network: {serviceCIDRs: [10.112.0.0/16]}\n")
	if r := s.refused(t, cluster.Signed, "cluster configuration", "Renumber"); !strings.Contains(r.Problem, "serviceCIDRs") {
		t.Errorf("the problem does not name the field: %s", r.Problem)
	}
}

// balanced waits until a Service has an address of the pool.
func balanced(t *testing.T, s *site) {
	t.Helper()
	k := s.kube.In("site")
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "balanced"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}`)
	cluster.Eventually(t, patience, "the Service to have an address of the new pool", func() error {
		ip, err := k.Field(t.Context(), "service/balanced", "{.status.loadBalancer.ingress[0].ip}")
		if err == nil && !strings.HasPrefix(ip, "192.0.2.") {
			err = fmt.Errorf("it has %q", ip)
		}
		return err
	})
}
