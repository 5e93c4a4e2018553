package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/vm/debian"
	"github.com/bothy-os/bothy/test/vm/guest/pace"
	"github.com/bothy-os/bothy/test/vm/qemu"
	"github.com/bothy-os/bothy/test/vm/rootfs"
)

// Lab is what machines are made with on this host.
type Lab struct {
	// Paths of the source tree.
	Paths cluster.Paths
	// Accelerator machines run under.
	Accelerator qemu.Accelerator

	dir     string
	store   *debian.Store
	init    string
	busybox string
	// work is how long this host takes for the work of package pace.
	work time.Duration
}

// Open looks at the host and gets what every machine needs. The test is skipped
// where machines cannot run; with BOTHY_VM=require that is a failure instead.
func Open(t testing.TB) *Lab {
	t.Helper()
	paths, err := cluster.FindPaths()
	if err != nil {
		t.Fatal(err)
	}
	unless(t, missing())
	l := &Lab{Paths: paths, dir: filepath.Join(paths.Root, "build", "vm")}
	if err := l.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	accelerator, reason := qemu.ChooseAccelerator(t.Context())
	if reason != nil {
		t.Logf("machines are emulated, and slow: %v", reason)
	}
	l.Accelerator = accelerator
	return l
}

// NeedProduct ends the test like [Open] where the product was not built, or a
// repository cannot be made for it.
func (l *Lab) NeedProduct(t testing.TB) {
	t.Helper()
	unless(t, l.Paths.Missing())
}

// unless ends the test for a reason, if there is one.
func unless(t testing.TB, why string) {
	t.Helper()
	switch {
	case why == "":
	case os.Getenv("BOTHY_VM") == "require":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// missing says what keeps machines from running here, or "".
func missing() string {
	var names []string
	for _, tool := range []string{qemu.Binary, "apt-get", "dpkg-deb", "xz", "mke2fs", "mkfs.xfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			names = append(names, tool)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("virtual machines need %s: install what is missing with `hack/deps.sh vm`", strings.Join(names, ", "))
}

func (l *Lab) prepare(ctx context.Context) (err error) {
	if l.store, err = debian.Open(filepath.Join(l.dir, "debian")); err != nil {
		return err
	}
	if l.busybox, err = l.store.Busybox(ctx); err != nil {
		return err
	}
	l.init = filepath.Join(l.dir, "guest")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", l.init, "./test/vm/guest")
	build.Dir = l.Paths.Root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build process 1 of the machines: %w: %s", err, out)
	}
	l.work = pace.Measure()
	return nil
}

// Binary returns the path of a program of the product, as `make build` leaves it.
func (l *Lab) Binary(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(l.Paths.Bin, name)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: build it with `make build`", err)
	}
	return file
}

// Tree makes a root file system with what an ordinary host has: a shell and the
// usual commands, users, and a resolver configuration without servers.
func (l *Lab) Tree(t testing.TB) *rootfs.Tree {
	t.Helper()
	tree, err := l.tree(t.Context(), filepath.Join(l.scratch(t), "root"))
	if err != nil {
		t.Fatalf("make a root file system: %v", err)
	}
	return tree
}

func (l *Lab) tree(ctx context.Context, dir string) (*rootfs.Tree, error) {
	tree, err := rootfs.NewTree(dir)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tree.Add("/init", l.init), tree.Add("/usr/bin/busybox", l.busybox)); err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, l.busybox, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("list the commands of busybox: %w", err)
	}
	for _, command := range strings.Fields(string(list)) {
		if _, err := os.Lstat(tree.Host("/" + command)); err == nil {
			continue
		}
		if err := tree.Symlink("/"+command, "/usr/bin/busybox"); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{"/root", "/mnt", "/var/log", "/var/lib", "/etc", "/proc", "/sys", "/dev", "/run"} {
		if err := tree.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, file := range []struct{ path, text string }{
		{"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"},
		{"/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
		{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"},
		{"/etc/resolv.conf", ""},
	} {
		if err := tree.Write(file.path, []byte(file.text), 0o644); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// scratch is a directory of the test's own, on the disk the source tree is on: links
// to what was built there cost nothing.
func (l *Lab) scratch(t testing.TB) string {
	t.Helper()
	parent := filepath.Join(l.dir, "run")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}
