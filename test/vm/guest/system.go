package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bringUp is process 1 on the root disk. It returns when the part that talks to
// the host has ended, which is the end of the machine.
func bringUp() error {
	if err := mountAll(systemMounts()); err != nil {
		return err
	}
	// Systemd does this everywhere, and containers count on it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if err := nameDisks(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return err
	}
	if err := setUpLoopback(); err != nil {
		return err
	}
	talker := exec.Command("/init", "talk")
	talker.Env = []string{"PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/root", "LANG=C.UTF-8"}
	talker.Stdout, talker.Stderr = os.Stdout, os.Stderr
	if err := talker.Start(); err != nil {
		return err
	}
	return reapUntil(talker.Process.Pid)
}

// reapUntil waits for every process that has nobody else, until one ends.
func reapUntil(last int) error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid == last:
			return fmt.Errorf("the part that talks to the host has ended, status %#x", int(status))
		}
	}
}

// nameDisks makes /dev/disk/by-id/virtio-SERIAL for every disk, as udev does.
func nameDisks() error {
	const dir = "/dev/disk/by-id"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, serial := range disks() {
		if serial == "" {
			continue
		}
		if err := os.Symlink("/dev/"+name, filepath.Join(dir, "virtio-"+serial)); err != nil {
			return err
		}
	}
	return nil
}

func setUpLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
