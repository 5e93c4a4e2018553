// Package workloads shows, on one shared node and with the real kubectl, what
// an operator expects of Kubernetes: each test asserts behaviour, not fields.
package workloads

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

var shared cluster.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// patience is for what takes seconds on an idle machine and many on one that
// runs these tests in parallel.
const patience = 90 * time.Second

// podTemplate is the metadata and spec of a pod that runs the toolbox with the
// arguments given, as JSON, which is YAML too.
func podTemplate(app string, args ...string) string {
	return fmt.Sprintf(`{
  "metadata": {"labels": {"app": %q}},
  "spec": {
    "terminationGracePeriodSeconds": 1,
    "containers": [{
      "name": "toolbox", "image": "bothy.local/toolbox:1", "args": [%s],
      "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
      "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}}
    }]
  }
}`, app, quoted(args))
}

// pod is a manifest of a bare pod that runs the toolbox.
func pod(name string, args ...string) string {
	return strings.Replace(podTemplate(name, args...), `"metadata": {`,
		fmt.Sprintf(`"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, `, name), 1)
}

func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = fmt.Sprintf("%q", a)
	}
	return strings.Join(out, ", ")
}

// startPod runs a pod and waits until it is Ready.
func startPod(t *testing.T, k *cluster.Kubectl, name string, args ...string) {
	t.Helper()
	k.Apply(t, pod(name, args...))
	k.Run(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
}

// deployment is a manifest of a Deployment of the toolbox.
func deployment(name string, replicas int, args ...string) string {
	return fmt.Sprintf(`{
  "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": %q},
  "spec": {"replicas": %d, "selector": {"matchLabels": {"app": %q}}, "template": %s}
}`, name, replicas, name, podTemplate(name, args...))
}
