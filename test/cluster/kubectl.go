package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Kubectl is the real client, with a kubeconfig and a namespace.
type Kubectl struct {
	// Kubeconfig is the path of the file in use.
	Kubeconfig string

	bin, home, namespace string
}

// In returns the same client for another namespace.
func (k *Kubectl) In(namespace string) *Kubectl {
	c := *k
	c.namespace = namespace
	return &c
}

// Namespace is the namespace the client works in.
func (k *Kubectl) Namespace() string { return k.namespace }

// Command prepares a kubectl command.
func (k *Kubectl) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.bin, append([]string{"--namespace", k.namespace}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig, "HOME="+k.home)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Output runs a command and returns its standard output; the error holds the
// standard error.
func (k *Kubectl) Output(ctx context.Context, args ...string) (string, error) {
	return k.pipe(ctx, nil, args...)
}

func (k *Kubectl) pipe(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := k.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Run runs a command and returns its output; a failure ends the test.
func (k *Kubectl) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := k.Output(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Refused runs a command that must fail, and returns its error.
func (k *Kubectl) Refused(t testing.TB, args ...string) string {
	t.Helper()
	out, err := k.Output(t.Context(), args...)
	if err == nil {
		t.Fatalf("kubectl %s was expected to fail, but printed: %s", strings.Join(args, " "), out)
	}
	return err.Error()
}

// Apply applies a manifest.
func (k *Kubectl) Apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := k.pipe(t.Context(), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\nmanifest:\n%s", err, manifest)
	}
}

// ApplyRefused applies a manifest that must be refused, and returns the error.
func (k *Kubectl) ApplyRefused(t testing.TB, manifest string) string {
	t.Helper()
	out, err := k.pipe(t.Context(), strings.NewReader(manifest), "apply", "-f", "-")
	if err == nil {
		t.Fatalf("the manifest was expected to be refused, but kubectl printed: %s\n%s", out, manifest)
	}
	return err.Error()
}

// JSON gets an object or list into value.
func (k *Kubectl) JSON(ctx context.Context, value any, args ...string) error {
	out, err := k.Output(ctx, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), value); err != nil {
		return fmt.Errorf("decode kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Field returns one field of an object by JSON path, such as
// "{.status.phase}"; "" if it is not set.
func (k *Kubectl) Field(ctx context.Context, object, path string) (string, error) {
	return k.Output(ctx, "get", object, "-o", "jsonpath="+path)
}

// FieldIs waits until a field has a value.
func (k *Kubectl) FieldIs(t testing.TB, within time.Duration, object, path, want string) {
	t.Helper()
	Eventually(t, within, fmt.Sprintf("%s of %s to be %q", path, object, want), func() error {
		got, err := k.Field(t.Context(), object, path)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// Exec runs a command in a container and returns its output.
func (k *Kubectl) Exec(ctx context.Context, pod string, command ...string) (string, error) {
	return k.Output(ctx, append([]string{"exec", pod, "--"}, command...)...)
}

// Rollout waits until a Deployment, StatefulSet or DaemonSet has rolled out.
func (k *Kubectl) Rollout(t testing.TB, within time.Duration, object string) {
	t.Helper()
	k.Run(t, "rollout", "status", object, "--timeout", within.String())
}

// TestNamespace makes a namespace for one test, which goes with it.
func (k *Kubectl) TestNamespace(t testing.TB) *Kubectl {
	t.Helper()
	name := "test-" + randomName()
	k.Run(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			k.In(name).dump(t)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := k.Output(ctx, "delete", "namespace", name, "--wait=false"); err != nil {
			t.Errorf("delete the test's namespace: %v", err)
		}
	})
	return k.In(name)
}

func (k *Kubectl) dump(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{"get", "all,pvc,events", "-o", "wide"}, {"describe", "pods"}} {
		out, err := k.Output(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// PodList is the part of a list of pods that tests look at.
type PodList struct {
	Items []Pod `json:"items"`
}

// Pod is the part of a pod that tests look at.
type Pod struct {
	Metadata struct {
		Namespace         string  `json:"namespace"`
		Name              string  `json:"name"`
		UID               string  `json:"uid"`
		DeletionTimestamp *string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase      string `json:"phase"`
		PodIP      string `json:"podIP"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
		ContainerStatuses []struct {
			Name         string `json:"name"`
			ContainerID  string `json:"containerID"`
			RestartCount int    `json:"restartCount"`
			State        struct {
				Running *struct {
					StartedAt string `json:"startedAt"`
				} `json:"running"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// Ready reports whether the pod is Ready and not on its way out.
func (p *Pod) Ready() bool {
	if p.Metadata.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// Pods lists pods, those of all namespaces with "-A".
func (k *Kubectl) Pods(ctx context.Context, args ...string) ([]Pod, error) {
	var list PodList
	err := k.JSON(ctx, &list, append([]string{"pods"}, args...)...)
	return list.Items, err
}

// Evict asks for the eviction of a pod, as kubectl drain does for each pod.
func (k *Kubectl) Evict(ctx context.Context, pod string) error {
	body := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod, k.namespace)
	_, err := k.pipe(ctx, strings.NewReader(body), "create", "--raw", "/api/v1/namespaces/"+k.namespace+"/pods/"+pod+"/eviction", "-f", "-")
	return err
}
