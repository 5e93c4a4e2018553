package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// disk is a file system of the test's own, so that only what is on it fills up.
type disk struct{ dir string }

func newDisk(t *testing.T, dir, size string) disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size="+size); err != nil {
		t.Fatalf("mount a file system at %s: %v", dir, err)
	}
	return disk{dir}
}

func (d disk) resize(t *testing.T, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "size="+size); err != nil {
		t.Fatalf("resize %s: %v", d.dir, err)
	}
}

// A disk that fills up while a commit is fetched costs the site that commit, and
// nothing else, until there is room.
func TestDiskFillsUpDuringFetch(t *testing.T) {
	var small disk
	s := newSite(t, nil, func(n *cluster.Node) {
		small = newDisk(t, filepath.Join(n.State, "git"), "3m")
		t.Cleanup(func() {
			if err := n.Stop(context.WithoutCancel(t.Context()), false); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(small.dir, 0); err != nil {
				t.Error(err)
			}
		})
	})
	w := watch(t, s)
	s.push(t)
	s.arrives(t)

	before := s.newest()
	s.repo.Write(t, "large", noise(t, 8<<20))
	s.push(t)
	s.complains(t, []string{"free space", "no space"})
	if err := s.has(t.Context(), before); err != nil {
		t.Errorf("the site did not stay on its last good commit: %v", err)
	}
	w.expects("keep-0")
	s.kube.Run(t, "delete", "configmap", "keep-0")
	cluster.Eventually(t, patience, "drift to be undone on a full disk", func() error { return s.has(t.Context(), before) })

	small.resize(t, "64m")
	s.arrives(t)
	w.check(t)
}

// noise is text that cannot be compressed to less than half of its size.
func noise(t *testing.T, size int) string {
	t.Helper()
	b := make([]byte, size/2)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}
