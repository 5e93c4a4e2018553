package gitops

import (
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

	// A cluster cannot be renumbered; saying so must not harm it.
	s.repo.Write(t, "clusters/default/cluster.yaml", clusterFile+"  network: {serviceCIDRs: [10.112.0.0/16]}\n")
	if r := s.refused(t, cluster.Signed, "cluster configuration", "Renumber"); !strings.Contains(r.Problem, "serviceCIDRs") {
		t.Errorf("the problem does not name the field: %s", r.Problem)
	}
}
