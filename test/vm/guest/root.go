package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stageEnv tells the two processes 1 apart.
	stageEnv = "VM_STAGE"
	// rootSerial is the serial of the root disk.
	rootSerial = "root"
	rootWait   = 30 * time.Second
	newRoot    = "/newroot"
)

// enterRoot makes the root disk the root of the file system and continues
// there. A machine does not stay in its initramfs, because pivot_root, which
// containers need, does not work from there.
func enterRoot() error {
	if err := mountAll(kernelMounts()); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	dev, err := waitForDisk(rootSerial)
	if err != nil {
		return err
	}
	if err := mount(mountPoint{dev, newRoot, "ext4", 0, ""}); err != nil {
		return err
	}
	for _, m := range kernelMounts() {
		if err := unix.Mount(m.target, newRoot+m.target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	if err := switchRoot(); err != nil {
		return fmt.Errorf("go to the root disk: %w", err)
	}
	return unix.Exec("/init", []string{"/init"}, []string{stageEnv + "=2"})
}

func switchRoot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// loadModules loads the files of a directory in the order of their names.
func loadModules(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := loadModule(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("load module %s: %w", f.Name(), err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err == unix.EEXIST { //nolint:errorlint // system calls return it as it is
		return nil
	}
	return err
}

// waitForDisk returns the device of the disk with a serial. Drivers find their
// devices some time after they were loaded.
func waitForDisk(serial string) (string, error) {
	for deadline := time.Now().Add(rootWait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for name, s := range disks() {
			if s == serial {
				return "/dev/" + name, nil
			}
		}
	}
	return "", fmt.Errorf("no disk with serial %q appeared within %s, only %v", serial, rootWait, disks())
}

// disks maps the names of disks to their serials.
func disks() map[string]string {
	out := map[string]string{}
	files, _ := filepath.Glob("/sys/block/*/serial")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			out[filepath.Base(filepath.Dir(f))] = strings.TrimSpace(string(data))
		}
	}
	return out
}
