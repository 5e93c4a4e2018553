package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type mountPoint struct {
	source, target, fstype string
	flags                  uintptr
	options                string
}

const noFiles = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// kernelMounts are those both stages need.
func kernelMounts() []mountPoint {
	return []mountPoint{
		{"proc", "/proc", "proc", noFiles, ""},
		{"sysfs", "/sys", "sysfs", noFiles, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	}
}

// systemMounts are what a distribution mounts beside them.
func systemMounts() []mountPoint {
	return []mountPoint{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"mqueue", "/dev/mqueue", "mqueue", noFiles, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", noFiles, "nsdelegate,memory_recursiveprot"},
		{"bpf", "/sys/fs/bpf", "bpf", noFiles, "mode=0700"},
		{"securityfs", "/sys/kernel/security", "securityfs", noFiles, ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", noFiles, ""},
	}
}

func mountAll(all []mountPoint) error {
	for _, m := range all {
		if err := mount(m); err != nil {
			return err
		}
	}
	return nil
}

func mount(m mountPoint) error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}
