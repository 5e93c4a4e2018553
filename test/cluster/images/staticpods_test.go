package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bothy-os/bothy/test/cluster"
)

// staticPods is where the kubelet of a node under test looks for pods of its own, on the node and below its state
// directory. Kubelets of the product look nowhere.
const (
	staticPods      = "/var/lib/kubelet/static"
	staticPodsState = "kubelet/static"
)

// withStaticPods builds a bothy that differs from the product in one line: its kubelet has static pods. It returns a
// directory with it and the other programs.
func withStaticPods(t *testing.T, paths cluster.Paths) string {
	t.Helper()
	const line = "StateDir: boot.StateDir, RunDir: boot.RunDir, BinDir: c.BinDir,"
	source := filepath.Join(paths.Root, "agent", "kube.go")
	text, err := os.ReadFile(source)
	must(t, err)
	if bytes.Count(text, []byte(line)) != 1 {
		t.Fatalf("%s does not say %q once: the test does not know where the kubelet's settings are any more", source, line)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, "kube.go")
	must(t, os.WriteFile(changed, bytes.Replace(text, []byte(line), []byte(line+fmt.Sprintf(" StaticPodDir: %q,", staticPods)), 1), 0o600))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	bin := filepath.Join(dir, "bin")
	must(t, os.Mkdir(bin, 0o755))
	programs, err := os.ReadDir(paths.Bin)
	must(t, err)
	for _, p := range programs {
		if p.Name() != "bothy" {
			must(t, os.Symlink(filepath.Join(paths.Bin, p.Name()), filepath.Join(bin, p.Name())))
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(bin, "bothy"), "./cmd/bothy")
	cmd.Dir, cmd.Env = paths.Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a bothy with static pods: %v\n%s", err, out)
	}
	return bin
}

// TestStaticPods has the kubelet make pods that the API server is never asked about: those of files on its disk.
func TestStaticPods(t *testing.T) {
	a, base := newAssault(t)
	a.Paths.Bin = withStaticPods(t, a.Paths)
	a.settle(t, base, func() {})
	dir := filepath.Join(a.State, staticPodsState)
	must(t, os.MkdirAll(dir, 0o700))
	named := func(x attack) string { return "static-" + x.policy + "-" + x.name }
	for _, x := range append(append([]attack{}, attackTable...), twins...) {
		must(t, os.WriteFile(filepath.Join(dir, named(x)+".json"), []byte(pod(named(x), x.at(local)+":1")), 0o600))
	}
	socket, err := a.Path("/run/bothy/containerd.sock")
	must(t, err)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	containers := func(x attack) ([]*cri.Container, error) {
		list, err := runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
			LabelSelector: map[string]string{"io.kubernetes.pod.name": named(x) + "-" + a.Name},
		}})
		return list.GetContainers(), err
	}
	for _, x := range twins {
		cluster.Eventually(t, patience, named(x)+" to run", func() error {
			list, err := containers(x)
			if err == nil && (len(list) != 1 || list[0].State != cri.ContainerState_CONTAINER_RUNNING) {
				err = fmt.Errorf("its containers are %v", list)
			}
			return err
		})
	}
	each(t, func(t *testing.T, x attack) {
		cluster.Eventually(t, patience, "the kubelet to be refused", func() error {
			got, err := a.kubectl.Output(t.Context(), "get", "events", "--field-selector", "reason=Failed,involvedObject.name="+named(x)+"-"+a.Name, "-o", "jsonpath={.items[*].message}")
			if err == nil && !bytes.Contains([]byte(got), []byte(x.denied)) {
				err = fmt.Errorf("events: %q", got)
			}
			return err
		})
		if list, err := containers(x); err != nil || len(list) > 0 {
			t.Errorf("it has containers: %v, %v", list, err)
		}
	})
}
