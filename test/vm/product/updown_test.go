package product

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/vm"
	"github.com/bothy-os/bothy/test/vm/rootfs"
)

const (
	binDir   = "/opt/bothy/bin"
	images   = "/opt/bothy/images"
	stateDir = "/var/lib/site"
	inspect  = "/opt/bothy/inspect"

	// On a host of its own a node serves within seconds. In a machine it has to be as
	// much slower as the machine is, with room for a busy host.
	upTakes   = 30 * time.Second
	downTakes = 10 * time.Second
	slack     = 2 * time.Minute
)

// The example repository comes up on a host that has a kernel and busybox, serves,
// and goes without a trace.
func TestUpServesAndDownLeavesNothing(t *testing.T) {
	lab := vm.Open(t)
	lab.NeedProduct(t)
	names := os.Getenv("BOTHY_VM_KERNELS")
	if names == "" {
		names = "6.1 6.12"
	}
	repo := cluster.RepoFrom(t, filepath.Join(lab.Paths.Root, "examples", "repo"), false)
	// The programs for it are the most demanding ones of a kernel.
	const settings = "clusters/default/cluster.yaml"
	repo.Write(t, settings, strings.Replace(repo.Read(t, settings), "  network:\n", "  network:\n    spliceNamespaces: [hello]\n", 1))
	repo.Push(t, "Splice connections between pods", cluster.Signed)
	for kernel := range strings.FieldsSeq(names) {
		t.Run(kernel, func(t *testing.T) {
			m := lab.Boot(t, vm.Spec{
				Kernel: kernel, Root: host(t, lab, repo), FreeMiB: 4096, MemoryMiB: 3072, Network: true,
			})
			upAndDown(t, m, repo)
		})
	}
}

// host is a root file system with the product and the repository, both where they
// are found under the same name as here.
func host(t *testing.T, lab *vm.Lab, repo *cluster.Repo) *rootfs.Tree {
	t.Helper()
	tree := lab.Tree(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bothy", "bothy-init", "bothy-cni", "runc", "containerd-shim-runc-v2"} {
		must(tree.AddProgram(filepath.Join(binDir, name), lab.Binary(t, name)))
	}
	program := filepath.Join(t.TempDir(), "inspect")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./test/vm/product/inspect")
	build.Dir = lab.Paths.Root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build inspect: %v\n%s", err, out)
	}
	must(tree.AddProgram(inspect, program))
	must(tree.Add(images, lab.Paths.Images))
	must(tree.Add(repo.Bare, repo.Bare))
	must(tree.Add(repo.TrustRoot(), repo.TrustRoot()))
	return tree
}

func upAndDown(t *testing.T, m *vm.Machine, repo *cluster.Repo) {
	before := lines(m.Output(t, inspect))
	limit := m.Scale(upTakes) + slack
	args := append([]string{"up", "--name", "site", "--images", images, "--timeout", limit.String(), "-o", "json"}, repo.UpArgs()...)
	var up cluster.UpResult
	out := bothy(t, m, limit+slack, args...)
	if err := json.Unmarshal([]byte(out), &up); err != nil {
		t.Fatalf("decode what bothy up printed: %v\n%s", err, out)
	}
	t.Logf("the node serves %.1f s after it was asked for: %v", up.Took, up.Milestones)

	answer := m.Output(t, "wget", "-q", "-O", "-", "-T", "60", "http://"+up.NodeIP+":30080/")
	if want := "Hello from a signed commit"; !strings.Contains(answer, want) {
		t.Errorf("the workload answers %q, not %q", answer, want)
	}
	status := bothy(t, m, m.Scale(downTakes), "status")
	t.Logf("bothy status:\n%s", status)
	attached(t, m)
	reportRestarts(t, m)
	t.Logf("kernel modules in use: %s", m.Output(t, "sh", "-c", "lsmod | cut -d' ' -f1 | sort | xargs"))
	during := lines(m.Output(t, inspect))
	for _, kind := range []string{"process ", "cgroup ", "link ", "firewall table ", "BPF program "} {
		if !slices.ContainsFunc(added(before, during), func(s string) bool { return strings.HasPrefix(s, kind) }) {
			t.Errorf("a running node adds no %s to the host: that none is left proves nothing", strings.TrimSpace(kind))
		}
	}

	bothy(t, m, m.Scale(downTakes)+slack, "down", "--purge")
	cluster.Eventually(t, m.Scale(downTakes), "the host to be as before", func() error {
		if left := added(before, lines(m.Output(t, inspect))); len(left) > 0 {
			return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
		return nil
	})
	if out := m.Output(t, "sh", "-c", "ls -d "+stateDir+" 2>/dev/null || true"); out != "" {
		t.Errorf("the purged state directory is still there: %s", out)
	}
}

// attached asserts that all of the dataplane is in force, whatever way of attaching the kernel has.
func attached(t *testing.T, m *vm.Machine) {
	t.Helper()
	var status struct {
		Backend  string
		Attached []string
		Problems []any
	}
	if err := json.Unmarshal([]byte(bothy(t, m, m.Scale(downTakes)+slack, "net", "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	t.Logf("attached by %s: %v", status.Backend, status.Attached)
	for _, name := range []string{"eth0-ingress", "eth0-egress", "cgroup-connect4", "cgroup-splice4", "cgroup-splice6"} {
		if !slices.Contains(status.Attached, name) {
			t.Errorf("%s is not attached: %v, problems %v", name, status.Attached, status.Problems)
		}
	}
	if !slices.ContainsFunc(status.Attached, func(s string) bool { return strings.HasPrefix(s, "pod") && strings.HasSuffix(s, "-ingress") }) {
		t.Errorf("no pod's interface has programs: %v", status.Attached)
	}
}

// reportRestarts shows what a process printed that had to be started again. A slow
// machine may exceed deadlines inside Kubernetes; the node then has to recover, which
// is what is tested here.
func reportRestarts(t *testing.T, m *vm.Machine) {
	t.Helper()
	var status cluster.Status
	if err := json.Unmarshal([]byte(bothy(t, m, m.Scale(downTakes), "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Components {
		if c.Restarts > 0 {
			t.Logf("%s was started again %d times: %s", c.Name, c.Restarts, c.LastError)
		}
		if c.Name == "kube" && c.Restarts > 0 {
			t.Logf("the last it printed:\n%s", m.Output(t, "tail", "-n", "40", stateDir+"/logs/kube.stderr"))
		}
	}
}

// bothy runs a command of the product and returns its standard output; a failure
// ends the test, with what the node has to say.
func bothy(t *testing.T, m *vm.Machine, limit time.Duration, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not done within %s", limit))
	defer cancel()
	progress := &log{t: t, start: time.Now()}
	r, err := m.Run(ctx, vm.Command{Args: command(args...), Env: environment(), Stderr: progress})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit status %d", r.Code)
	}
	if err == nil {
		return r.Stdout
	}
	for _, more := range [][]string{command("status"), command("logs", "--tail", "100"), {"tail", "-n", "40", stateDir + "/logs/kube.stderr"}} {
		ctx, cancel := context.WithTimeout(t.Context(), m.Scale(downTakes))
		said, err := m.Run(ctx, vm.Command{Args: more, Env: environment()})
		cancel()
		t.Logf("%s: %v\n%s%s", strings.Join(more, " "), err, said.Stdout, said.Stderr)
	}
	t.Fatalf("bothy %s: %v\n%s", strings.Join(args, " "), err, r.Stdout)
	return ""
}

func command(args ...string) []string { return append([]string{binDir + "/bothy"}, args...) }

func environment() []string { return []string{"BOTHY_STATE=" + stateDir, "NO_COLOR=1"} }

// log passes progress on to the test's log as it comes.
type log struct {
	t     *testing.T
	start time.Time
}

func (l *log) Write(p []byte) (int, error) {
	l.t.Logf("%6.1f s  %s", time.Since(l.start).Seconds(), strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// added lists what is in later more often than in earlier.
func added(earlier, later []string) []string {
	count := map[string]int{}
	for _, s := range earlier {
		count[s]++
	}
	var out []string
	for _, s := range later {
		if count[s]--; count[s] < 0 {
			out = append(out, s)
		}
	}
	return out
}
