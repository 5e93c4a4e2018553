package volumes

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileSystem is one that has project quotas.
type fileSystem struct {
	name string
	// size is little, but not less than what mkfs accepts.
	size string
	mkfs []string
}

func ext4() fileSystem {
	return fileSystem{"ext4", "64M", []string{"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"}}
}

func xfs() fileSystem { return fileSystem{"xfs", "320M", []string{"mkfs.xfs", "-q"}} }

// quotaMount gives the test a small file system with project quotas, in a mount
// namespace of its own thread: nothing else sees it, and it goes with the test.
func quotaMount(t *testing.T, fs fileSystem, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	for _, tool := range []string{fs.mkfs[0], "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skipf("needs a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Skipf("needs private mounts: %v", err)
	}
	dir := t.TempDir()
	image, target := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	run(t, "truncate", "-s", fs.size, image)
	run(t, fs.mkfs[0], append(fs.mkfs[1:], image)...)
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", fs.name, "-o", "loop"+options, image, target).CombinedOutput(); err != nil {
		t.Skipf("this kernel cannot mount %s with project quota from a file: %v: %s", fs.name, err, out)
	}
	t.Cleanup(func() { run(t, "umount", target) })
	dropSysResource(t)
	return target
}

// dropSysResource makes this thread subject to quotas, as containers are: the
// kernel lets CAP_SYS_RESOURCE exceed them.
func dropSysResource(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[unix.CAP_SYS_RESOURCE/32].Effective &^= 1 << (unix.CAP_SYS_RESOURCE % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func TestProjectQuotaOnRealExt4(t *testing.T) { projectQuotaHolds(t, ext4()) }

func TestProjectQuotaOnRealXFS(t *testing.T) { projectQuotaHolds(t, xfs()) }

func projectQuotaHolds(t *testing.T, fs fileSystem) {
	s := newStore(filepath.Join(quotaMount(t, fs, ",prjquota"), "volumes"), testLog())
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	q := s.quota.(*projectQuota)
	if err := q.check(); err != nil {
		t.Fatal(err)
	}
	a, b := mustCreate(t, s, "pvc-a_ns_a", 4<<20), mustCreate(t, s, "pvc-b_ns_b", 8<<20)
	if a == b {
		t.Fatalf("two volumes share a project: %s", a)
	}

	file := filepath.Join(s.path("pvc-a_ns_a"), "data")
	if n := fill(t, file, 16<<20); n < 3<<20 || n > 4<<20 {
		t.Errorf("a volume of 4 MiB took %d bytes", n)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.path("pvc-a_ns_a"), &st); err != nil {
		t.Fatal(err)
	}
	if size := int64(st.Blocks) * st.Bsize; size != 4<<20 {
		t.Errorf("df in the volume says %d bytes, want %d", size, 4<<20)
	}

	if _, err := s.limit("pvc-a_ns_a", 12<<20); err != nil {
		t.Fatal(err)
	}
	if n := fill(t, file, 16<<20); n < 11<<20 || n > 12<<20 {
		t.Errorf("the volume expanded to 12 MiB took %d bytes", n)
	}
	if n := fill(t, filepath.Join(s.path("pvc-b_ns_b"), "data"), 6<<20); n != 6<<20 {
		t.Errorf("the other volume took %d bytes of 6 MiB", n)
	}

	project, ok := q.existing(s.path("pvc-a_ns_a"))
	if !ok {
		t.Fatal("the volume has no project")
	}
	if again, err := q.project(s.path("pvc-a_ns_a")); err != nil || again != project {
		t.Errorf("project changed from %d to %d, %v", project, again, err)
	}
	if err := s.discard("pvc-a_ns_a"); err != nil {
		t.Fatal(err)
	}
	if err := s.emptyTrash(); err != nil {
		t.Fatal(err)
	}
	// XFS frees the space of deleted files a little later.
	var used, limit int64
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; {
		used, limit, err = q.usage(project)
		if err != nil || used == 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil || used != 0 || limit != 0 {
		t.Errorf("after deletion project %d uses %d of %d bytes, %v", project, used, limit, err)
	}
}

func TestQuotaThatIsNotEnforcedIsNotPromised(t *testing.T) {
	q := &projectQuota{dir: quotaMount(t, ext4(), "")}
	if err := q.check(); err == nil {
		t.Error("project quota is promised on a file system mounted without prjquota")
	}
}

// fill writes up to n bytes and returns how many there was room for.
func fill(t *testing.T, path string, n int) int {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	written := 0
	for written < n {
		k, err := f.Write(block)
		written += k
		if errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.ENOSPC) {
			return written
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return written
}
