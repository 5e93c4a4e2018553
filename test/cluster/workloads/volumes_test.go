package workloads

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// statefulSet is a manifest of a StatefulSet with one volume per pod.
func statefulSet(name string, replicas int, size string) string {
	template := strings.Replace(podTemplate(name, "serve"), `"spec": {`, `"spec": {"securityContext": {"fsGroup": 65532}, `, 1)
	template = strings.Replace(template, `"env": [`, `"volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [`, 1)
	return fmt.Sprintf(`{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": %q}, "spec": {
		"replicas": %d, "serviceName": %q, "selector": {"matchLabels": {"app": %q}}, "template": %s,
		"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
			"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": %q}}}}]}}`,
		name, replicas, name, name, template, size)
}

// Each replica has a name and a volume of its own; the data outlives its pod.
func TestStatefulSetKeepsItsData(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8080}]}}`)
	k.Apply(t, statefulSet("db", 2, "16Mi"))
	k.Rollout(t, patience, "statefulset/db")
	for _, name := range []string{"db-0", "db-1"} {
		if _, err := k.Exec(t.Context(), name, "/toolbox", "write", "-sync", "/data/note", "I am "+name); err != nil {
			t.Fatal(err)
		}
	}
	volume := k.Run(t, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.volumeName}")
	uid := k.Run(t, "get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}")
	k.Run(t, "delete", "pod", "db-0")
	cluster.Eventually(t, patience, "db-0 to be back, as a new pod", func() error {
		pods, err := k.Pods(t.Context(), "-l", "app=db")
		for _, p := range pods {
			if p.Metadata.Name == "db-0" && p.Metadata.UID != uid && p.Ready() {
				return nil
			}
		}
		return fmt.Errorf("it is not: %w", err)
	})
	for _, name := range []string{"db-0", "db-1"} {
		if out, err := k.Exec(t.Context(), name, "/toolbox", "cat", "/data/note"); err != nil || strings.TrimSpace(out) != "I am "+name {
			t.Errorf("%s reads %q, %v", name, out, err)
		}
	}
	if now := k.Run(t, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.volumeName}"); now != volume {
		t.Errorf("db-0 has another volume: %s instead of %s", now, volume)
	}
	// A headless Service gives each replica a name in DNS.
	cluster.Eventually(t, 15*time.Second, "db-1.db to resolve to its pod", func() error {
		ip := k.Run(t, "get", "pod", "db-1", "-o", "jsonpath={.status.podIP}")
		out, err := k.Exec(t.Context(), "db-0", "/toolbox", "resolve", "db-1.db")
		if err == nil && strings.TrimSpace(out) != ip {
			err = fmt.Errorf("it resolves to %q, the pod has %s", out, ip)
		}
		return err
	})
}

// A claim waits for its pod, grows when asked to, and takes its volume with it
// when it is deleted.
func TestVolumeLifecycle(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, `{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}}`)
	cluster.Eventually(t, 20*time.Second, "the claim to wait for its first consumer", func() error {
		events, err := k.Output(t.Context(), "get", "events", "-o", "jsonpath={.items[*].reason}")
		if err == nil && !strings.Contains(events, "WaitForFirstConsumer") {
			err = fmt.Errorf("events: %q", events)
		}
		return err
	})
	if phase := k.Run(t, "get", "pvc", "disk", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("without a pod the claim is %s", phase)
	}
	withVolume := strings.Replace(pod("user", "sleep"), `"spec": {`,
		`"spec": {"securityContext": {"fsGroup": 65532}, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}], `, 1)
	withVolume = strings.Replace(withVolume, `"env": [`, `"volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [`, 1)
	k.Apply(t, withVolume)
	k.Run(t, "wait", "--for=condition=Ready", "pod/user", "--timeout", patience.String())
	if _, err := k.Exec(t.Context(), "user", "/toolbox", "write", "/data/note", "kept"); err != nil {
		t.Fatal(err)
	}

	k.Run(t, "patch", "pvc", "disk", "--type=merge", "-p", `{"spec": {"resources": {"requests": {"storage": "32Mi"}}}}`)
	k.FieldIs(t, patience, "pvc/disk", "{.status.capacity.storage}", "32Mi")
	if out, err := k.Exec(t.Context(), "user", "/toolbox", "cat", "/data/note"); err != nil || strings.TrimSpace(out) != "kept" {
		t.Errorf("after expansion the file reads %q, %v", out, err)
	}

	volume := k.Run(t, "get", "pvc", "disk", "-o", "jsonpath={.spec.volumeName}")
	k.Run(t, "delete", "pod/user", "pvc/disk")
	cluster.Eventually(t, patience, "volume "+volume+" to be deleted", func() error {
		out, err := k.Output(t.Context(), "get", "pv", volume, "--ignore-not-found")
		if err == nil && out != "" {
			err = fmt.Errorf("it is still there: %s", out)
		}
		return err
	})
}
