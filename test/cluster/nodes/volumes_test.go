package nodes

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// claiming is a manifest of a claim, and of a pod on a node that has its volume.
func claiming(name string, on *cluster.Node) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "List", "items": [
		{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": %[1]q},
			"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}},
		{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %[1]q}, "spec": {"terminationGracePeriodSeconds": 1, "securityContext": {"fsGroup": 65532},
			"nodeSelector": {"kubernetes.io/hostname": %[2]q},
			"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": %[1]q}}],
			"containers": [{"name": "toolbox", "image": "bothy.local/toolbox:1", "args": ["sleep"],
				"volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}]}`, name, on.Name)
}

// volumes are on the disk of the node that their pod is on, and a worker has a say about its own alone.
func (c *two) volumes(t *testing.T) {
	c.k.Apply(t, claiming("on-worker", c.worker))
	c.k.Apply(t, claiming("on-control-plane", c.cp))
	c.ready(t, "on-worker", "on-control-plane")
	c.k.Run(t, "exec", "on-worker", "--", "/toolbox", "write", "-sync", "/data/note", "still here")
	c.k.Run(t, "delete", "pod", "on-worker")
	c.k.Apply(t, claiming("on-worker", c.worker))
	c.ready(t, "on-worker")
	if out := c.k.Run(t, "exec", "on-worker", "--", "/toolbox", "cat", "/data/note"); strings.TrimSpace(out) != "still here" {
		t.Errorf("the next pod reads %q", out)
	}

	own, other := c.volumeOf(t, "on-worker"), c.volumeOf(t, "on-control-plane")
	if own.node() != c.worker.Name || other.node() != c.cp.Name {
		t.Fatalf("the volumes are on %s and %s", own.node(), other.node())
	}
	as := c.asWorker(t, "volumes")
	patch := `{"metadata": {"annotations": {"bothy.dev/capacity": "touched"}}}`
	if out, err := as("patch", "pv", own.Metadata.Name, "--patch", patch); err != nil {
		t.Errorf("the worker may not change its own volume: %v %s", err, out)
	}
	for what, args := range map[string][]string{
		"change another node's volume":       {"patch", "pv", other.Metadata.Name, "--patch", patch},
		"take another node's volume":         {"patch", "pv", other.Metadata.Name, "--patch", `{"metadata": {"annotations": {"bothy.dev/node": "` + c.worker.Name + `"}}}`},
		"give its volume to another node":    {"patch", "pv", own.Metadata.Name, "--patch", `{"metadata": {"annotations": {"bothy.dev/node": "` + c.cp.Name + `"}}}`},
		"delete another node's volume":       {"delete", "pv", other.Metadata.Name, "--wait=false"},
		"change a claim":                     {"annotate", "pvc", "on-worker", "a=b"},
		"change another node's claim status": {"patch", "pvc", "on-control-plane", "--subresource=status", "--patch", `{"status": {"capacity": {"storage": "1Gi"}}}`},
		"remove the StorageClass":            {"delete", "storageclass", "local"},
	} {
		if out, err := as(args...); err == nil || !strings.Contains(out, "orbidden") {
			t.Errorf("a worker that wants to %s is told: %s %v", what, out, err)
		}
	}

	c.k.Run(t, "delete", "pod", "on-worker")
	c.k.Run(t, "delete", "pvc", "on-worker")
	cluster.Eventually(t, patience, "the volume on the worker to go with its claim", func() error {
		out, err := c.k.Output(t.Context(), "get", "pv", own.Metadata.Name, "--ignore-not-found", "-o", "jsonpath={.status.phase}")
		if err == nil && out != "" {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
}

type volume struct {
	Metadata struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

func (v *volume) node() string { return v.Metadata.Annotations["bothy.dev/node"] }

// volumeOf is what a claim is bound to.
func (c *two) volumeOf(t *testing.T, claim string) *volume {
	t.Helper()
	v := &volume{}
	name := c.k.Run(t, "get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
	if err := json.Unmarshal([]byte(c.k.Run(t, "get", "pv", name, "-o", "json")), v); err != nil {
		t.Fatal(err)
	}
	return v
}
