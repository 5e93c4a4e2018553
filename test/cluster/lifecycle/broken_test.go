package lifecycle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// Each broken input is answered with what is wrong and what to do, and leaves
// the machine as it was.
func TestBrokenInputs(t *testing.T) {
	before := snapshot(t)
	repo := cluster.NewRepo(t, false, nil)
	stranger := cluster.NewRepo(t, false, nil)
	malformed := cluster.NewRepo(t, false, map[string]string{
		"clusters/default/cluster.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: default\nspec:\n  netwrok: {}\n",
	})
	portTaken := cluster.NewRepo(t, false, map[string]string{
		"clusters/default/cluster.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: default\nspec:\n  controlPlane:\n    port: 10250\n",
	})
	badRoot := filepath.Join(t.TempDir(), "root.yaml")
	if err := os.WriteFile(badRoot, []byte("apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\nversion: one\nsigners: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		args []string
		// want is text that the error must contain.
		want []string
	}{
		{
			"no repository",
			nil,
			[]string{"--repo", "bothy repo init"},
		},
		{
			"no trust root",
			[]string{"--repo", repo.URL()},
			[]string{"no trust root", "--trust-root", "--trust-none"},
		},
		{
			"trust root that is not there",
			[]string{"--repo", repo.URL(), "--trust-root", "/no/such/root.yaml"},
			[]string{"/no/such/root.yaml"},
		},
		{
			"malformed trust root",
			[]string{"--repo", repo.URL(), "--trust-root", badRoot},
			[]string{badRoot + ":3", "version"},
		},
		{
			"trust root of somebody else",
			[]string{"--repo", repo.URL(), "--path", repo.Path, "--trust-root", stranger.TrustRoot()},
			[]string{"refused by rule"},
		},
		{
			"repository that cannot be reached",
			[]string{"--repo", "https://127.0.0.1:9/site.git", "--trust-root", repo.TrustRoot()},
			[]string{"repository", "127.0.0.1:9"},
		},
		{
			"repository over a protocol that anybody can change on the way",
			[]string{"--repo", "http://127.0.0.1:9/site.git", "--trust-root", repo.TrustRoot()},
			[]string{"http", "https://"},
		},
		{
			"repository that is not one",
			[]string{"--repo", "file:///proc/self", "--trust-root", repo.TrustRoot()},
			[]string{"repository", "/proc/self"},
		},
		{
			"site that is not in the repository",
			[]string{"--repo", repo.URL(), "--path", "clusters/nowhere", "--trust-root", repo.TrustRoot()},
			[]string{"clusters/nowhere"},
		},
		{
			"malformed cluster.yaml",
			malformed.UpArgs(),
			[]string{"clusters/default/cluster.yaml:6", "spec.netwrok", "network"},
		},
		{
			"port in use",
			portTaken.UpArgs(),
			[]string{"clusters/default/cluster.yaml:7", "spec.controlPlane.port", "10250 is in use by the kubelet", "choose another port"},
		},
		{
			"images that are not there",
			append(repo.UpArgs(), "--images", "/no/such/images"),
			[]string{"/no/such/images", "OCI layout"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := cluster.NodeFor(t, nil)
			node.Args = c.args
			r := node.Try(t, node.UpCommandArgs("--timeout", "2m")...)
			if r.Code != 1 {
				t.Errorf("exit code %d, want 1", r.Code)
			}
			t.Logf("bothy said: %s", lastLines(r.Stderr))
			for _, want := range c.want {
				if !strings.Contains(r.Stderr, want) {
					t.Errorf("the error does not mention %q:\n%s", want, r.Stderr)
				}
			}
			before.NothingLeft(t, node)
		})
	}

	t.Run("not root", func(t *testing.T) {
		node := cluster.NodeFor(t, repo)
		cmd := asNobody(t, node)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "not root") || !strings.Contains(string(out), "sudo") {
			t.Errorf("bothy up as nobody: %v: %s", err, out)
		}
		if _, err := os.Stat(node.State); !os.IsNotExist(err) {
			t.Errorf("the state directory was made: %v", err)
		}
	})

	t.Run("too little disk", func(t *testing.T) {
		node := cluster.NodeFor(t, repo)
		mountSmall(t, filepath.Dir(node.State))
		r := node.Try(t, node.UpCommandArgs()...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "too little disk") || !strings.Contains(r.Stderr, "MiB") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	})

	t.Run("state of another node", func(t *testing.T) {
		node := cluster.NodeFor(t, repo)
		node.Up(t)
		node.Down(t)
		args := node.UpCommandArgs()
		for i := range args {
			if args[i] == node.Name {
				args[i] = "other"
			}
		}
		r := node.Try(t, args...)
		if r.Code != 1 || !strings.Contains(r.Stderr, node.Name) || !strings.Contains(r.Stderr, "--state") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	})
	before.NothingLeft(t)
}

// Ctrl-C at any point of the start ends it at once and leaves nothing.
func TestInterruptDuringStart(t *testing.T) {
	before := snapshot(t)
	repo := cluster.NewRepo(t, false, nil)
	for _, c := range []struct {
		name string
		// when says that the moment has come, given the progress so far.
		when func(n *cluster.Node, progress string) bool
	}{
		{"as soon as process 1 runs", func(n *cluster.Node, _ string) bool { _, err := n.Processes(); return err == nil }},
		{"when the agent runs", func(n *cluster.Node, _ string) bool { _, err := n.Process("agent"); return err == nil }},
		{"when the first component is ready", func(_ *cluster.Node, progress string) bool { return strings.Contains(progress, "ready") }},
		{"when the commit is accepted", func(_ *cluster.Node, progress string) bool { return strings.Contains(progress, "accepted") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := cluster.NodeFor(t, repo)
			progress := &buffer{}
			cmd := node.Command(t.Context(), node.UpCommandArgs()...)
			cmd.Stderr = progress
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cluster.Eventually(t, patience, "the moment "+c.name, func() error {
				if c.when(node, progress.String()) {
					return nil
				}
				return errNotYet
			})
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 && code != 1 {
				t.Errorf("exit code %d (%v), want 130\n%s", code, err, progress)
			}
			if !strings.Contains(progress.String(), "interrupted") {
				t.Errorf("bothy does not say that it was interrupted: %s", lastLines(progress.String()))
			}
			if _, err := node.Process("agent"); err == nil {
				t.Error("the agent still runs")
			}
			before.NothingLeft(t, node)
		})
	}

	// The interrupted state is good for a start.
	node := cluster.NodeFor(t, repo)
	cmd := node.Command(t.Context(), node.UpCommandArgs()...)
	progress := &buffer{}
	cmd.Stderr = progress
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, patience, "etcd to be ready", func() error {
		if strings.Contains(progress.String(), "etcd ready") {
			return nil
		}
		return errNotYet
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted start reports success")
	}
	node.Up(t)
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "\n")
}

// asNobody prepares `bothy up` as an unprivileged user. The binary is copied:
// the source tree may be in a directory that others cannot enter.
func asNobody(t *testing.T, node *cluster.Node) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "bothy-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "bothy")
	data, err := os.ReadFile(node.Paths.Bothy())
	if err == nil {
		err = os.WriteFile(bin, data, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, bin, "up", "--state", node.State, "--trust-none", "--repo", "file:///nowhere")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// mountSmall mounts a file system of 64 MiB for the length of the test.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(fmt.Errorf("mount a small tmpfs: %w", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}
