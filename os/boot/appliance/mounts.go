package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/efi"
)

const cgroupRoot = "/sys/fs/cgroup"

// mountSystem mounts what every process expects. /dev, /proc and /sys are there already.
func mountSystem(log *slog.Logger) error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		fstype, dir string
		flags       uintptr
		options     string
		optional    bool
	}{
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", false},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
		{"tmpfs", "/var", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", false},
		{"tmpfs", "/mnt", plain, "mode=0755", false},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", false},
		{"mqueue", "/dev/mqueue", plain, "", true},
		{"cgroup2", cgroupRoot, plain, "nsdelegate", false},
		{"securityfs", "/sys/kernel/security", plain, "", true},
		{"efivarfs", efi.Dir, plain, "", true},
		{"tracefs", "/sys/kernel/tracing", plain, "", true},
		{"bpf", boot.BPFDir, plain, "mode=0700", false},
	} {
		err := mountOn(m.fstype, m.dir, m.flags, m.options)
		switch {
		case err != nil && m.optional:
			log.Warn("not mounted, which is no harm", "dir", m.dir, "err", err)
		case err != nil:
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// Programs and volumes of pods name it the old way.
	if err := os.Symlink("../run", "/var/run"); err != nil {
		return err
	}
	return boot.PrepareRun()
}

func mountOn(fstype, dir string, flags uintptr, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return unix.Mount(fstype, dir, fstype, flags, options)
}

// The node's processes are in a cgroup of their own, and pods beside it: a group that
// hands controllers to its children holds no processes.
const (
	nodeCgroup   = "/bothy"
	systemCgroup = nodeCgroup + "/system"
)

// makeCgroups makes the node's cgroups and moves this process, and so all to come, there.
func makeCgroups() error {
	for _, dir := range []string{"", nodeCgroup} {
		if dir != "" {
			if err := os.Mkdir(cgroupRoot+dir, 0o755); err != nil {
				return err
			}
		}
		if err := enableControllers(cgroupRoot + dir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(cgroupRoot+systemCgroup, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(cgroupRoot, systemCgroup, "cgroup.procs"), []byte("1"), 0o644)
}

func enableControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(available)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// sysctls are what a node needs otherwise than the kernel has it.
func setSysctls(log *slog.Logger) {
	for _, s := range []struct{ name, value string }{
		// Any pod may watch many files.
		{"fs/inotify/max_user_instances", "8192"},
		{"fs/inotify/max_user_watches", "1048576"},
		// Many addresses behind few links: the tables must not be the limit.
		{"net/ipv4/neigh/default/gc_thresh3", "8192"},
		{"net/ipv6/neigh/default/gc_thresh3", "8192"},
		// What the kubelet would set itself.
		{"vm/overcommit_memory", "1"},
		{"kernel/panic", "5"},
		{"kernel/panic_on_oops", "1"},
		// The three-finger salute is a signal to process 1.
		{"kernel/ctrl-alt-del", "0"},
		// Nobody has to look at addresses of the kernel, or at its log.
		{"kernel/kptr_restrict", "2"},
		{"kernel/dmesg_restrict", "1"},
		{"kernel/unprivileged_bpf_disabled", "1"},
	} {
		if err := os.WriteFile(filepath.Join("/proc/sys", s.name), []byte(s.value), 0o644); err != nil {
			log.Warn("sysctl not set", "name", s.name, "err", err)
		}
	}
}
