package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	// away is how long Kubernetes is kept from running.
	away = time.Minute
	// agentKills is how often the agent is killed.
	agentKills = 5

	nodePort = "30093"
)

const restartManifest = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: toolbox
      image: bothy.local/toolbox:1
      args: [serve]
      readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: toolbox, image: "bothy.local/toolbox:1", args: [sleep]}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: NodePort
  selector: {app: server}
  ports: [{name: stream, port: 83, targetPort: 8083, nodePort: 30093}]
`

// The agent is killed, then replaced by another binary, then Kubernetes is away for
// a minute: with 200 new connections per second and some that last, from a pod
// through a ClusterIP and from outside through a node port, none is reset or refused.
func TestNobodyNoticesThatProcessesGo(t *testing.T) {
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	node.Paths.Bin = copyOf(t, node.Paths.Bin, filepath.Dir(node.State))
	up := node.Up(t)
	k := node.Kubectl(t)
	k.Apply(t, restartManifest)
	k.Run(t, "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout", patience.String())
	client, _, err := k.OpenPod(t.Context(), node, "client", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	clusterIP, err := k.Field(t.Context(), "service/server", "{.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	ways := []struct {
		name, address string
		dial          dialer
	}{
		{"pod to ClusterIP", net.JoinHostPort(clusterIP, "83"), client.Dial},
		{"outside to node port", net.JoinHostPort(up.NodeIP, nodePort), (&net.Dialer{}).DialContext},
	}
	for _, w := range ways {
		cluster.Eventually(t, patience, w.name+" to answer", func() error {
			conn, err := w.dial(t.Context(), "tcp", w.address)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	}
	under := func(what string, f func(t *testing.T)) {
		t.Run(what, func(t *testing.T) {
			var all []*traffic
			for _, w := range ways {
				all = append(all, startTraffic(t, w.name, w.dial, w.address, 100))
			}
			f(t)
			for _, w := range all {
				w.check(t)
			}
		})
	}

	under("the agent is killed", func(t *testing.T) {
		for range agentKills {
			kill(t, node, "agent", syscall.SIGKILL)
			node.WaitServing(t, patience)
		}
	})
	under("the agent is replaced by another binary", func(t *testing.T) {
		before := running(t, node)
		replace(t, node.Paths.Bothy())
		kill(t, node, "agent", syscall.SIGTERM)
		node.WaitServing(t, patience)
		if after := running(t, node); os.SameFile(before, after) {
			t.Error("the agent still runs the old binary: the test proves nothing")
		}
	})
	under("Kubernetes is away for a minute", func(t *testing.T) {
		kills := keepDown(t, node)
		t.Logf("bothy kube was killed %d times", kills)
		node.WaitServing(t, patience)
	})
}

// copyOf copies the binaries, for one of them to be replaced.
func copyOf(t *testing.T, bin, dir string) string {
	t.Helper()
	to := filepath.Join(dir, "bin")
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bothy", "bothy-cni", "bothy-init", "runc", "containerd-shim-runc-v2", "kubectl"} {
		// Links: another name for the file is enough, as it is replaced and not changed.
		if err := os.Link(filepath.Join(bin, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// replace puts another file in the place of a binary, as an update does. What follows
// after the end of a program does not change what it does.
func replace(t *testing.T, path string) {
	t.Helper()
	next := path + ".next"
	if err := copyWith(path, next, "another version"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func copyWith(from, to, suffix string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, io.MultiReader(in, strings.NewReader(suffix)))
	return err
}

// running is the binary that the agent runs.
func running(t *testing.T, node *cluster.Node) os.FileInfo {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", node.MustProcess(t, "agent").PID))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// kill ends a process of the node and waits for its successor.
func kill(t *testing.T, node *cluster.Node, verb string, signal syscall.Signal) {
	t.Helper()
	victim := node.MustProcess(t, verb)
	if err := syscall.Kill(victim.PID, signal); err != nil {
		t.Fatalf("kill process %v: %v", victim, err)
	}
	cluster.Eventually(t, patience, "bothy "+verb+" to run again", func() error {
		p, err := node.Process(verb)
		if err == nil && p.PID == victim.PID {
			err = fmt.Errorf("process %v is still there", p)
		}
		return err
	})
}

// keepDown kills Kubernetes whenever it has come back, and returns how often.
func keepDown(t *testing.T, node *cluster.Node) int {
	t.Helper()
	kills := 0
	end := time.Now().Add(away)
	cluster.Eventually(t, away+patience, "the time to pass", func() error {
		if p, err := node.Process("kube"); err == nil {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatalf("kill process %v: %v", p, err)
			}
			kills++
		}
		if time.Now().Before(end) {
			return errors.New("it has not passed")
		}
		return nil
	})
	if kills == 0 {
		t.Error("Kubernetes was never there to be killed")
	}
	return kills
}
