// Package policy shows NetworkPolicy on a real node, with pods that the kubelet starts.
package policy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

var shared cluster.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// patience is for what takes seconds on an idle machine and many on a loaded one.
const patience = 90 * time.Second

// pod is a manifest of a pod that runs the toolbox; more is added to its container.
func pod(name, more string, args ...string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "labels": {"app": %q}},
		"spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [{
			"name": "toolbox", "image": "bothy.local/toolbox:1", "args": [%s], %s
			"env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}}`,
		name, name, strings.Join(quoted, ", "), more)
}

// server answers on a port with a name, and the kubelet asks it whether it does.
func server(name string) string {
	return pod(name, `"ports": [{"name": "web", "containerPort": 8080}, {"name": "echo", "containerPort": 8081}],
		"readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1},
		"livenessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1, "failureThreshold": 2},`, "serve")
}

func ready(t *testing.T, k *cluster.Kubectl, names ...string) {
	t.Helper()
	for _, name := range names {
		k.Run(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
	}
}

func address(t *testing.T, k *cluster.Kubectl, name string) string {
	t.Helper()
	return k.Run(t, "get", "pod", name, "-o", "jsonpath={.status.podIP}")
}

// policy is a manifest; spec is what follows the selector.
func policy(name, app, spec string) string {
	return fmt.Sprintf(`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": %q},
		"spec": {"podSelector": {"matchLabels": {"app": %q}}, %s}}`, name, app, spec)
}

// reaches waits until a pod gets an answer, or until it gets none, as wanted.
func reaches(t *testing.T, k *cluster.Kubectl, from, to string, want bool) {
	t.Helper()
	what := map[bool]string{true: " to reach ", false: " not to reach "}[want]
	cluster.Eventually(t, patience, from+what+to, func() error {
		out, err := dial(t.Context(), k, from, to)
		switch {
		case want:
			return err
		case err == nil:
			return fmt.Errorf("it was answered %q", out)
		case !strings.Contains(err.Error(), "timeout"):
			return fmt.Errorf("want silence, got %w", err)
		}
		return nil
	})
}

func dial(ctx context.Context, k *cluster.Kubectl, from, to string) (string, error) {
	return k.Exec(ctx, from, "/toolbox", "dial", "-timeout", "1s", "-send", "marco", "tcp", to)
}
