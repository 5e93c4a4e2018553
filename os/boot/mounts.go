package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountNode gives the node its own /proc, /sys, /run and state directories. It
// runs in a fresh mount namespace, whose changes nobody else sees.
func mountNode(env *Environment) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount /proc", func() error { return replaceMount("proc", "/proc") }},
		{"mount /sys", mountSys},
		{"mount /run", func() error { return mountRun(env) }},
		{"mount /var/lib and /var/log", func() error { return mountVar(env.StateDir) }},
		{"mount the BPF file system", func() error { return mountAt("bpf", BPFDir, "bpf", 0, "mode=0700") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// mountSys mounts a sysfs that shows the node's own network devices and puts
// the cgroup hierarchies back where they were: those are shared with the host.
func mountSys() error {
	cgroups, err := unix.OpenTree(unix.AT_FDCWD, "/sys/fs/cgroup", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone /sys/fs/cgroup: %w", err)
	}
	defer unix.Close(cgroups)
	if err := replaceMount("sysfs", "/sys"); err != nil {
		return err
	}
	return unix.MoveMount(cgroups, "", unix.AT_FDCWD, "/sys/fs/cgroup", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// replaceMount mounts a kernel file system where one of its kind already is.
// The old one is detached from this namespace first, so that nobody reads
// cgroup mounts twice in mountinfo; where that is not allowed it is covered.
func replaceMount(fstype, target string) error {
	_ = unix.Unmount(target, unix.MNT_DETACH) // not a mount point, or locked: cover it
	return unix.Mount(fstype, target, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// mountRun replaces /run by an empty tmpfs: sockets, network namespaces and
// container state of the node live there and never wear out the disk.
func mountRun(env *Environment) error {
	resolvTarget, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		// A dangling link still says where the file is looked for.
		resolvTarget, _ = os.Readlink("/etc/resolv.conf")
	}
	if err := mountAt("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	if err := PrepareRun(); err != nil {
		return err
	}
	if err := os.WriteFile(env.ResolvConfFile(), []byte(env.ResolvConf), 0o644); err != nil {
		return err
	}
	return useResolvConf(env.ResolvConfFile(), resolvTarget)
}

// PrepareRun makes what the node expects in a fresh /run.
func PrepareRun() error {
	for _, dir := range []string{RunDir, "/run/lock", "/run/netns", "/run/containerd"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// Network namespaces are bind mounts that must show up in containers'
	// mount namespaces made later.
	if err := unix.Mount("/run/netns", "/run/netns", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", "/run/netns", "", unix.MS_SHARED, "")
}

// useResolvConf makes file the resolver configuration. Where /etc/resolv.conf
// is a link into /run, whose content was just replaced, the target is made
// anew; elsewhere the file is mounted over it.
func useResolvConf(file, target string) error {
	if strings.HasPrefix(filepath.Clean(filepath.Join("/etc", relative(target))), "/run/") {
		target = filepath.Clean(filepath.Join("/etc", relative(target)))
	}
	if strings.HasPrefix(target, "/run/") {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.Symlink(file, target)
	}
	if _, err := os.Stat("/etc/resolv.conf"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, "")
}

func relative(target string) string {
	if filepath.IsAbs(target) {
		return filepath.Join("..", target)
	}
	return target
}

// mountVar gives the node its own view of the directories whose names upstream
// components have hard-coded, without making anything on the host: an overlay
// in memory carries the mount points.
func mountVar(stateDir string) error {
	// Open before anything is mounted over a parent of the state directory.
	state, err := unix.OpenTree(unix.AT_FDCWD, stateDir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open state directory %s: %w", stateDir, err)
	}
	defer unix.Close(state)
	for _, dir := range []string{"/var/lib", "/var/log"} {
		if err := overlayInMemory(dir); err != nil {
			return fmt.Errorf("overlay %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(StateDir, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(state, "", unix.AT_FDCWD, StateDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the state directory: %w", err)
	}
	return BindState()
}

// BindState shows parts of the state directory where upstream components look for them.
func BindState() error {
	binds := map[string]string{
		"kubelet":         "/var/lib/kubelet",
		"cni":             "/var/lib/cni",
		"logs/pods":       "/var/log/pods",
		"logs/containers": "/var/log/containers",
	}
	for from, to := range binds {
		from = filepath.Join(StateDir, from)
		for _, dir := range []string{from, to} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s to %s: %w", from, to, err)
		}
	}
	// Volumes mounted by the kubelet must reach containers that are started
	// later, and those that ask for mount propagation.
	return unix.Mount("", "/var/lib/kubelet", "", unix.MS_REC|unix.MS_SHARED, "")
}

// overlayInMemory makes dir writable for the node alone.
func overlayInMemory(dir string) error {
	scratch := filepath.Join("/run/overlay", filepath.Base(dir))
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work))
}

func mountAt(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return unix.Mount(source, target, fstype, flags, data)
}
