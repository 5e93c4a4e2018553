package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// TestKilled kills a process again and again while it fetches, and finds a
// mirror that opens, has its tip whole and goes on.
func TestKilled(t *testing.T) {
	if url := os.Getenv("BOTHY_KILL_URL"); url != "" {
		m, err := mirror.Open(os.Getenv("BOTHY_KILL_DIR"), mirror.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("fetching")
		fetch(t, m, url)
		if err := m.Tidy(context.Background()); err != nil {
			t.Fatal(err)
		}
		return
	}
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	r := gittest.NewRepo(t)
	dir := filepath.Join(t.TempDir(), "git")
	killed := 0
	for i := range rounds {
		r.Write("small", fmt.Sprint(i))
		r.Write(fmt.Sprintf("noise/%d", i), noise(i, 400_000))
		r.Commit(nil, "next")
		if fetchAndKill(t, r.Dir, dir) {
			killed++
		}
		m, err := mirror.Open(dir, mirror.Limits{})
		if err != nil {
			t.Fatalf("after %d kills: %v", killed, err)
		}
		if tip, err := m.Tip("main"); err != nil {
			t.Fatal(err)
		} else if tip != "" {
			whole(t, r, m, tip)
		}
	}
	t.Logf("killed %d of %d times within a fetch", killed, rounds)
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, m, r.Dir)
	whole(t, r, m, r.Head())
	r.Git("--git-dir="+dir, "fsck", "--full")
	if left, _ := filepath.Glob(filepath.Join(dir, "objects", "pack", "tmp_*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// fetchAndKill reports whether the process was killed before it was done.
func fetchAndKill(t *testing.T, url, dir string) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "BOTHY_KILL_URL="+url, "BOTHY_KILL_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(rand.N(300*time.Millisecond), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.Wait() != nil
}

// whole checks that every object of a commit can be read.
func whole(t *testing.T, r *gittest.Repo, m *mirror.Mirror, tip string) {
	t.Helper()
	for object := range strings.SplitSeq(strings.TrimSpace(r.Git("rev-list", "--objects", tip)), "\n") {
		if id, _, _ := strings.Cut(object, " "); !m.Has(id) {
			t.Fatalf("object %s is missing", object)
		}
	}
	if _, err := m.Object(mirror.CommitObject, tip); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull fetches onto a file system that is too small, which is one of
// the test's own, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("BOTHY_FULL_DIR"); dir != "" {
		fillDisk(t, dir, os.Getenv("BOTHY_FULL_URL"))
		return
	}
	r := gittest.NewRepo(t)
	r.Write("small", "one")
	r.Commit(nil, "first")
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), "BOTHY_FULL_DIR="+t.TempDir(), "BOTHY_FULL_URL="+r.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL):
		t.Skipf("no user namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "SKIP"):
		t.Skipf("%s", out)
	}
}

func fillDisk(t *testing.T, dir, url string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	m, err := mirror.Open(filepath.Join(dir, "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	first := fetch(t, m, url)
	r := gittest.OpenRepo(t, url)
	r.Write("large", noise(1, 3_000_000))
	second := r.Commit(nil, "large")
	_, err = m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main"})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space") {
		t.Fatalf("error %v", err)
	}
	if tip, err := m.Tip("main"); tip != first || err != nil {
		t.Errorf("tip %s, %v", tip, err)
	}
	whole(t, r, m, first)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < 1_500_000 {
		t.Errorf("the failure left no room: %d blocks, %v", fs.Bavail, err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	if tip := fetch(t, m, url); tip != second {
		t.Errorf("tip %s", tip)
	}
	whole(t, r, m, second)
}
