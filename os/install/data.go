package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot/ext4"
)

// prepareData gives the data partition its file system and its first files. The kernel does
// not know the partition yet, because nothing may: a loop device stands for it.
func prepareData(device string, offset, size int64, opts *Options) (err error) {
	loop, detach, err := attach(device, offset, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, detach()) }()
	f, err := os.OpenFile(loop, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := ext4.Prepare(f, size); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bothy-install-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Mount(loop, dir, "ext4", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the data partition: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	if err := ext4.Grow(dir, size); err != nil {
		return err
	}
	return fill(dir, opts)
}

// fill writes the first files.
func fill(dir string, opts *Options) error {
	for to, from := range opts.FileTrees {
		if err := copyTree(from, filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	for name, data := range opts.Files {
		if err := durable.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	unix.Sync()
	return nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return durable.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		return durable.CopyFile(path, filepath.Join(to, rel), 0o600)
	})
}

// attach makes a part of a disk a device.
func attach(device string, offset, size int64) (loop string, detach func() error, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open the loop driver: %w", err)
	}
	defer control.Close()
	disk, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer disk.Close()
	const tries = 8 // somebody else may take the number first
	for range tries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop = fmt.Sprintf("/dev/loop%d", number)
		l, err := os.OpenFile(loop, os.O_RDWR, 0)
		if err != nil {
			return "", nil, err
		}
		err = unix.IoctlLoopConfigure(int(l.Fd()), &unix.LoopConfig{
			Fd: uint32(disk.Fd()), Info: unix.LoopInfo64{Offset: uint64(offset), Sizelimit: uint64(size)},
		})
		if errors.Is(err, unix.EBUSY) {
			l.Close()
			continue
		}
		if err != nil {
			l.Close()
			return "", nil, fmt.Errorf("set up %s: %w", loop, err)
		}
		return loop, func() error {
			defer l.Close()
			return errors.Join(l.Sync(), unix.IoctlSetInt(int(l.Fd()), unix.LOOP_CLR_FD, 0))
		}, nil
	}
	return "", nil, errors.New("no loop device is free")
}
