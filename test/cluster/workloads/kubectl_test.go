package workloads

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

func TestKubectlVersionsAgree(t *testing.T) {
	t.Parallel()
	node, _ := shared.Node(t)
	out := node.Kubectl(t).Run(t, "version")
	versions := regexp.MustCompile(`(?m)^(?:Client|Server) Version: (\S+)$`).FindAllStringSubmatch(out, -1)
	if len(versions) != 2 || versions[0][1] != versions[1][1] || !strings.HasPrefix(versions[1][1], "v1.37.") {
		t.Errorf("kubectl version printed %s", out)
	}
	if nodes := node.Kubectl(t).Run(t, "get", "nodes", "--no-headers"); !strings.Contains(nodes, " Ready ") || !strings.Contains(nodes, versions[1][1]) {
		t.Errorf("kubectl get nodes printed %s", nodes)
	}
}

func TestKubectlLogs(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	startPod(t, k, "speaker", "stream", "-interval", "50ms", "hello.site:80")
	cluster.Eventually(t, 20*time.Second, "a log line", func() error {
		out, err := k.Output(t.Context(), "logs", "speaker")
		if err == nil && !strings.Contains(out, "connected to ") {
			err = fmt.Errorf("the log is %q", out)
		}
		return err
	})

	// Follow a log from the start of the container to its end.
	k.Apply(t, strings.Replace(pod("short", "sleep", "2s"), `"spec": {`, `"spec": {"restartPolicy": "Never", `, 1))
	k.Run(t, "wait", "--for=condition=Ready", "pod/short", "--timeout", patience.String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := k.Output(ctx, "logs", "-f", "short"); err != nil {
		t.Errorf("following the log of a container that ends: %v", err)
	}
}

func TestKubectlExec(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	startPod(t, k, "box", "sleep")
	out := k.Run(t, "exec", "box", "--", "/toolbox", "env")
	if !strings.Contains(out, "POD_NAME=box") || !strings.Contains(out, "uid=65532") {
		t.Errorf("exec printed %s", out)
	}
	// The exit code of the command is kubectl's.
	err := k.Command(t.Context(), "exec", "box", "--", "/toolbox", "cat", "/no/such/file").Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 { //nolint:errorlint // Run returns it bare
		t.Errorf("exec of a failing command: %v", err)
	}
}

func TestKubectlPortForward(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	startPod(t, k, "server", "serve")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := k.Command(ctx, "port-forward", "--address", "127.0.0.1", "pod/server", ":8080")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()

	line, err := bufio.NewReader(stdout).ReadString('\n')
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+) ->`).FindStringSubmatch(line)
	if err != nil || port == nil {
		t.Fatalf("port-forward printed %q, %v", line, err)
	}
	for range 3 {
		body, err := httpGet(t.Context(), "http://127.0.0.1:"+port[1]+"/")
		if err != nil || !strings.Contains(body, `"identity":"server"`) {
			t.Fatalf("through port-forward: %q, %v", body, err)
		}
	}
}

func TestKubectlTop(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	startPod(t, k, "busy", "burn")
	cluster.Eventually(t, patience, "kubectl top to show that a pod burns CPU", func() error {
		out, err := k.Output(t.Context(), "top", "pod", "busy", "--no-headers")
		if err != nil {
			return err
		}
		f := strings.Fields(out)
		if len(f) != 3 {
			return fmt.Errorf("it printed %q", out)
		}
		milli, err := strconv.Atoi(strings.TrimSuffix(f[1], "m"))
		if err != nil || milli < 100 {
			return fmt.Errorf("it printed %q", out)
		}
		return nil
	})
	if out := k.Run(t, "top", "node", "--no-headers"); len(strings.Fields(out)) != 5 {
		t.Errorf("kubectl top node printed %q", out)
	}
}

func TestKubectlRollout(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, deployment("app", 2, "serve"))
	k.Rollout(t, patience, "deployment/app")
	k.Run(t, "set", "env", "deployment/app", "VERSION=two")
	k.Rollout(t, patience, "deployment/app")
	if out := k.Run(t, "exec", "deployment/app", "--", "/toolbox", "env"); !strings.Contains(out, "VERSION=two") {
		t.Errorf("after the rollout the environment is %s", out)
	}
	if out := k.Run(t, "rollout", "history", "deployment/app"); strings.Count(out, "<none>") != 2 {
		t.Errorf("two revisions were expected: %s", out)
	}
	k.Run(t, "rollout", "undo", "deployment/app")
	k.Rollout(t, patience, "deployment/app")
	k.Run(t, "rollout", "restart", "deployment/app")
	k.Rollout(t, patience, "deployment/app")
	if out := k.Run(t, "exec", "deployment/app", "--", "/toolbox", "env"); strings.Contains(out, "VERSION=two") {
		t.Errorf("after undo the environment is %s", out)
	}
}

// RBAC is in force: the administrator may do all, a fresh service account
// nothing, and one with a role what the role says.
func TestKubectlAuthCanI(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	if out := k.Run(t, "auth", "can-i", "*", "*", "--all-namespaces"); strings.TrimSpace(out) != "yes" {
		t.Errorf("the administrator may do everything: %q", out)
	}
	k.Run(t, "create", "serviceaccount", "reader")
	as := "--as=system:serviceaccount:" + k.Namespace() + ":reader"
	k.Refused(t, "auth", "can-i", "list", "pods", as)
	k.Run(t, "create", "role", "pods", "--verb=get,list", "--resource=pods")
	k.Run(t, "create", "rolebinding", "pods", "--role=pods", "--serviceaccount="+k.Namespace()+":reader")
	cluster.Eventually(t, 10*time.Second, "the role to be in force", func() error {
		_, err := k.Output(t.Context(), "auth", "can-i", "list", "pods", as)
		return err
	})
	k.Refused(t, "auth", "can-i", "delete", "pods", as)
	k.Refused(t, "get", "secrets", as)
}

func TestKubectlApplyIsRepeatable(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	manifest := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "green"}}`
	k.Apply(t, manifest)
	before := k.Run(t, "get", "configmap", "settings", "-o", "jsonpath={.metadata.resourceVersion}")
	k.Apply(t, manifest)
	if after := k.Run(t, "get", "configmap", "settings", "-o", "jsonpath={.metadata.resourceVersion}"); after != before {
		t.Errorf("applying the same manifest again wrote the object: %s became %s", before, after)
	}
	k.Apply(t, strings.Replace(manifest, "green", "blue", 1))
	if got := k.Run(t, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}"); got != "blue" {
		t.Errorf("the changed manifest gave colour %q", got)
	}
}
