package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Node is one bothy node on a state directory of its own.
type Node struct {
	Paths Paths
	// Name is unique on this machine: cgroups and links are named after it.
	Name string
	// State is the state directory.
	State string
	// Args are further arguments of `bothy up`.
	Args []string
	// Workers are how many further nodes `bothy up` makes on the same state directory.
	Workers int

	// had is what the node had when it was last stopped.
	had belongings
	// members are the further nodes as they were when the node was last stopped.
	members []*Node
}

// Worker is one of the further nodes, counted from 1.
func (n *Node) Worker(i int) *Node {
	name := fmt.Sprintf("%s-%d", n.Name, i+1)
	return &Node{Paths: n.Paths, Name: name, State: filepath.Join(n.State, "nodes", name)}
}

// NodeFor makes a node for the repository, not started yet. When the test ends
// it is taken down and must have left nothing; if the test failed, its logs are
// kept and shown in part.
func NodeFor(t testing.TB, repo *Repo) *Node {
	t.Helper()
	paths := Require(t)
	name := "t" + randomName()
	dir := RunDir(t, paths, name)
	n := &Node{Paths: paths, Name: name, State: filepath.Join(dir, "state")}
	if repo != nil {
		n.Args = repo.UpArgs()
	}
	t.Cleanup(func() {
		if t.Failed() {
			n.Dump(t)
		}
		n.End(t)
	})
	return n
}

// RunDir makes a directory below build/run that is removed with the test.
func RunDir(t testing.TB, paths Paths, name string) string {
	t.Helper()
	dir := filepath.Join(paths.Runs, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// Result is how a bothy command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Command prepares a bothy command on the node's state directory.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.Paths.Bothy(), args...)
	cmd.Env = append(os.Environ(), "BOTHY_STATE="+n.State, "NO_COLOR=1")
	// The commands leave nobody behind who would hold the pipes open, and a
	// test must not hang if one ever does.
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Bothy runs a bothy command to its end. Its output so far also goes to trace,
// unless that is nil.
func (n *Node) Bothy(ctx context.Context, trace io.Writer, args ...string) (Result, error) {
	cmd := n.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, io.Writer(&stderr)
	if trace != nil {
		cmd.Stderr = io.MultiWriter(&stderr, trace)
	}
	err := cmd.Run()
	r := Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("run bothy %s: %w", strings.Join(args, " "), err)
	}
	return r, nil
}

// Run runs a bothy command and returns its standard output; a failure ends the
// test.
func (n *Node) Run(t testing.TB, args ...string) string {
	t.Helper()
	r := n.Try(t, args...)
	if r.Code != 0 {
		t.Fatalf("bothy %s: exit code %d\n%s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	return r.Stdout
}

// Try runs a bothy command that may fail.
func (n *Node) Try(t testing.TB, args ...string) Result {
	t.Helper()
	r, err := n.Bothy(t.Context(), nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// UpCommandArgs are the arguments of `bothy up` for this node.
func (n *Node) UpCommandArgs(more ...string) []string {
	args := []string{"up", "--name", n.Name, "--images", n.Paths.Images, "--images", n.Paths.TestImages}
	if n.Workers > 0 {
		args = append(args, "--nodes", strconv.Itoa(1+n.Workers))
	}
	return append(append(args, n.Args...), more...)
}

// Start runs `bothy up` and returns what it printed once the node serves.
func (n *Node) Start(ctx context.Context, trace io.Writer, more ...string) (*UpResult, error) {
	r, err := n.Bothy(ctx, trace, n.UpCommandArgs(append([]string{"-o", "json"}, more...)...)...)
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("bothy up: exit code %d: %s", r.Code, r.Stderr)
	}
	up := &UpResult{}
	if err := json.Unmarshal([]byte(r.Stdout), up); err != nil {
		return nil, fmt.Errorf("decode what bothy up printed: %w\n%s", err, r.Stdout)
	}
	return up, nil
}

// Up starts the node and fails the test if it does not come up serving.
func (n *Node) Up(t testing.TB, more ...string) *UpResult {
	t.Helper()
	up, err := n.Start(t.Context(), nil, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("node %s is up at %s after %.2f s: %v", up.Node, up.NodeIP, up.Took, up.Milestones)
	return up
}

// Stop runs `bothy down`, with --purge if asked to. A node that is not there
// is fine.
func (n *Node) Stop(ctx context.Context, purge bool) error {
	if _, err := os.Stat(n.State); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if had, err := n.belongings(); err == nil { // else it does not run
		n.had = had
	}
	n.members = nil
	for i := range n.Workers {
		w := n.Worker(i + 1)
		if had, err := w.belongings(); err == nil {
			w.had = had
		}
		n.members = append(n.members, w)
	}
	args := []string{"down"}
	if purge {
		args = append(args, "--purge")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r, err := n.Bothy(ctx, nil, args...)
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return fmt.Errorf("bothy %s: exit code %d: %s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	return nil
}

// End takes the node down for good and asserts that nothing is left of it.
func (n *Node) End(t testing.TB) {
	t.Helper()
	ctx := context.Background() // the test's own has ended
	if err := n.Stop(ctx, true); err != nil {
		t.Errorf("take node %s down: %v", n.Name, err)
		return
	}
	if err := Poll(ctx, 15*time.Second, "node "+n.Name+" to be gone without a trace", func() error {
		left, err := n.Remains()
		for _, w := range n.members {
			more, problem := w.Remains()
			left, err = append(left, more...), errors.Join(err, problem)
		}
		if err == nil && len(left) > 0 {
			err = errors.New(strings.Join(left, ", "))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// Down stops the node and keeps its state.
func (n *Node) Down(t testing.TB) {
	t.Helper()
	start := time.Now()
	if err := n.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	t.Logf("node %s is down after %.2f s", n.Name, time.Since(start).Seconds())
}

// ReadStatus asks the node's agent.
func (n *Node) ReadStatus(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := n.Bothy(ctx, nil, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("bothy status: exit code %d: %s", r.Code, strings.TrimSpace(r.Stderr))
	}
	st := &Status{}
	if err := json.Unmarshal([]byte(r.Stdout), st); err != nil {
		return nil, fmt.Errorf("decode bothy status: %w", err)
	}
	return st, nil
}

// Status asks the node's agent; a failure ends the test.
func (n *Node) Status(t testing.TB) *Status {
	t.Helper()
	st, err := n.ReadStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Serving returns nil once the node is Ready, the newest commit is applied and
// its objects are healthy.
func (n *Node) Serving(ctx context.Context) error {
	st, err := n.ReadStatus(ctx)
	if err != nil {
		return err
	}
	g := st.Git
	switch {
	case !st.Node.Ready:
		return fmt.Errorf("node is not Ready: %s", st.Node.Reason)
	case g.Accepted == nil || g.Applied == nil || g.Accepted.Commit != g.Applied.Commit:
		return fmt.Errorf("the accepted commit is not applied: phase %s, objects %+v", g.Phase, g.Objects)
	case g.Objects.Ready != g.Objects.Total:
		return fmt.Errorf("%d of %d objects ready: %+v", g.Objects.Ready, g.Objects.Total, g.Objects.Failed)
	}
	for _, c := range st.Components {
		if c.State != "ready" && c.State != "done" {
			return fmt.Errorf("component %s/%s is %s: %s", c.Process, c.Name, c.State, c.LastError)
		}
	}
	return nil
}

// WaitServing waits until the node serves again.
func (n *Node) WaitServing(t testing.TB, within time.Duration) {
	t.Helper()
	Eventually(t, within, "node "+n.Name+" to serve", func() error { return n.Serving(t.Context()) })
}

// Kubectl returns the administrator's kubectl for the node.
func (n *Node) Kubectl(t testing.TB) *Kubectl {
	t.Helper()
	k, err := n.NewKubectl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// NewKubectl writes a kubeconfig beside the state directory.
func (n *Node) NewKubectl(ctx context.Context) (*Kubectl, error) {
	r, err := n.Bothy(ctx, nil, "kubeconfig")
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("bothy kubeconfig: exit code %d: %s", r.Code, r.Stderr)
	}
	dir := filepath.Dir(n.State)
	file := filepath.Join(dir, "kubeconfig")
	// Tests that share a node write it while others read it.
	if err := durable.WriteFile(file, []byte(r.Stdout), 0o600); err != nil {
		return nil, err
	}
	return &Kubectl{bin: filepath.Join(n.Paths.Bin, "kubectl"), Kubeconfig: file, home: dir, namespace: "default"}, nil
}

// Dump shows what helps to understand a failure.
func (n *Node) Dump(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, args := range [][]string{{"status"}, {"events"}, {"logs", "--tail", "60"}} {
		r, err := n.Bothy(ctx, nil, args...)
		if err != nil {
			t.Logf("bothy %s: %v", strings.Join(args, " "), err)
			continue
		}
		t.Logf("bothy %s:\n%s%s", strings.Join(args, " "), r.Stdout, r.Stderr)
	}
	if k, err := n.NewKubectl(ctx); err == nil {
		for _, args := range [][]string{{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A", "--field-selector", "type!=Normal"}} {
			out, err := k.Output(ctx, args...)
			t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	n.keepLogs(t)
}

// keepLogs moves the logs out of the way of the clean-up.
func (n *Node) keepLogs(t testing.TB) {
	t.Helper()
	to := filepath.Join(n.Paths.Runs, "logs-"+n.Name)
	if err := os.CopyFS(to, os.DirFS(filepath.Join(n.State, "logs"))); err != nil {
		t.Logf("keep the logs: %v", err)
		return
	}
	t.Logf("the node's logs are kept in %s", to)
}
