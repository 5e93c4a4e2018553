package lifecycle

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// The example repository of the source tree comes up, on a machine whose ports
// are all in use by others, and goes without a trace.
func TestUpServesAndDownLeavesNothing(t *testing.T) {
	before := snapshot(t)
	ports := occupyPorts(t)
	repo := cluster.RepoFrom(t, filepath.Join(cluster.Require(t).Root, "examples", "repo"), false)
	node := cluster.NodeFor(t, repo)

	r := node.Try(t, node.UpCommandArgs()...)
	if r.Code != 0 {
		t.Fatalf("bothy up: exit code %d\n%s", r.Code, r.Stderr)
	}
	t.Logf("bothy up said:\n%s%s", r.Stderr, r.Stdout)
	head := repo.Head(t)
	for _, want := range []string{"Ready", head[:12], repo.Signer, "http://", "KUBECONFIG=", "git commit -S", "bothy down"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("bothy up does not mention %q", want)
		}
	}
	if strings.Contains(r.Stderr, "\x1b") {
		t.Error("the progress has escape sequences although it is not shown on a terminal")
	}
	if err := node.Serving(t.Context()); err != nil {
		t.Errorf("bothy up came back, but %v", err)
	}
	for _, verb := range []string{"agent", "kube"} {
		node.MustProcess(t, verb)
	}
	ports.stillOurs(t)

	if len(programs(t, node)) == 0 {
		t.Error("the node has no BPF programs: the check that none is left proves nothing")
	}
	if err := node.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(node.State); !os.IsNotExist(err) {
		t.Errorf("the purged state directory is still there: %v", err)
	}
	before.NothingLeft(t, node)

	// Taking down what is not there is fine.
	if r := node.Try(t, "down"); r.Code != 0 {
		t.Errorf("a second bothy down: exit code %d: %s", r.Code, r.Stderr)
	}
}

// A node that was taken down and started again is the same cluster: same
// objects, same data, same address, and its pods are there again.
func TestRestartKeepsTheCluster(t *testing.T) {
	before := snapshot(t)
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	first := node.Up(t)
	k := node.Kubectl(t)
	k.Run(t, "create", "configmap", "mine", "--from-literal=made=by-hand")
	k.Apply(t, claimingPod)
	k.Run(t, "wait", "--for=condition=Ready", "pod/keeper", "--timeout", patience.String())
	if _, err := k.Exec(t.Context(), "keeper", "/toolbox", "write", "-sync", "/data/note", "still here"); err != nil {
		t.Fatal(err)
	}
	uid := k.Run(t, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}")
	node.Down(t)
	before.NothingLeft(t, node)

	second := node.Up(t)
	if second.NodeIP != first.NodeIP {
		t.Errorf("the node's address changed from %s to %s", first.NodeIP, second.NodeIP)
	}
	// bothy up says that it serves: then it does so now, not in a while.
	if len(second.URLs) != 1 {
		t.Errorf("bothy up came back, but nothing answers: %v; before the restart it was %v", second.URLs, first.URLs)
	}
	k = node.Kubectl(t)
	if got := k.Run(t, "get", "configmap", "mine", "-o", "jsonpath={.data.made}"); got != "by-hand" {
		t.Errorf("the ConfigMap reads %q", got)
	}
	if got := k.Run(t, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}"); got != uid {
		t.Errorf("the pod is another one: %s became %s", uid, got)
	}
	cluster.Eventually(t, patience, "the pod to read its volume", func() error {
		out, err := k.Exec(t.Context(), "keeper", "/toolbox", "cat", "/data/note")
		if err == nil && strings.TrimSpace(out) != "still here" {
			err = fmt.Errorf("it reads %q", out)
		}
		return err
	})
}

const claimingPod = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: keeper}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 65532}
  volumes: [{name: data, persistentVolumeClaim: {claimName: keeper}}]
  containers:
    - name: toolbox
      image: bothy.local/toolbox:1
      args: [sleep]
      volumeMounts: [{name: data, mountPath: /data}]
`

// A second `bothy up` on a running node is refused and disturbs nothing.
func TestSecondUpIsRefused(t *testing.T) {
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	node.Up(t)
	boot := node.Status(t).Node.BootID
	r := node.Try(t, node.UpCommandArgs()...)
	if r.Code != 1 || !strings.Contains(r.Stderr, "already running") || !strings.Contains(r.Stderr, "bothy down") {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if err := node.Serving(t.Context()); err != nil {
		t.Errorf("the running node was disturbed: %v", err)
	}
	if now := node.Status(t).Node.BootID; now != boot {
		t.Errorf("the node was started anew: boot %s became %s", boot, now)
	}
}

// ports are listeners on the ports that a Kubernetes node is known to use.
type ports []net.Listener

func occupyPorts(t *testing.T) ports {
	t.Helper()
	var out ports
	for _, port := range []int{53, 2379, 2380, 6443, 10248, 10249, 10250, 10256, 10257, 10259, 30080} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Logf("port %d is in use by somebody else already, which is as good: %v", port, err)
			continue
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(conn, "not bothy")
				conn.Close()
			}
		}()
		out = append(out, l)
	}
	return out
}

// stillOurs asserts that whoever connects to the ports reaches us.
func (p ports) stillOurs(t *testing.T) {
	t.Helper()
	for _, l := range p {
		port := l.Addr().(*net.TCPAddr).Port
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
		if err != nil {
			t.Errorf("port %d: %v", port, err)
			continue
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "not bothy\n" {
			t.Errorf("port %d of this machine is answered by %q, %v", port, line, err)
		}
		conn.Close()
	}
}

// Links, cgroups and firewall tables are named after the node. A second node of
// the same name on other state is refused, and the first does not notice.
func TestSameNameOnOtherStateIsRefused(t *testing.T) {
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	up := node.Up(t)
	other := cluster.NodeFor(t, repo)
	unique := other.Name
	other.Name = node.Name
	r := other.Try(t, other.UpCommandArgs()...)
	other.Name = unique // what is left of the name belongs to the first
	if r.Code != 1 || !strings.Contains(r.Stderr, "--name") {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if err := node.Serving(t.Context()); err != nil {
		t.Errorf("the running node was disturbed: %v", err)
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(up.NodeIP, "6443"), 5*time.Second)
	if err != nil {
		t.Fatalf("the running node has lost its link: %v", err)
	}
	conn.Close()
}
