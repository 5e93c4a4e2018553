// Package devmapper makes devices of the kernel's device mapper. The ioctls are those of
// uapi/linux/dm-ioctl.h; what a target means is said by a table, as in
// admin-guide/device-mapper of the kernel's documentation.
package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	control = "/dev/mapper/control"

	create = 0xc138fd03 // DM_DEV_CREATE
	remove = 0xc138fd04 // DM_DEV_REMOVE
	resume = 0xc138fd06 // DM_DEV_SUSPEND, without the flag that makes it one
	load   = 0xc138fd09 // DM_TABLE_LOAD

	flagReadOnly = 1

	// headerSize is that of struct dm_ioctl; specSize of struct dm_target_spec.
	headerSize = 312
	specSize   = 40
	deviceAt   = 40
	nameAt     = 48
	nameSize   = 128
	typeSize   = 16
)

// CreateReadOnly makes a device of one target over so many bytes and returns its path.
func CreateReadOnly(name, target, table string, size int64) (_ string, err error) {
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open the device mapper: %w", err)
	}
	defer f.Close()
	fd := f.Fd()
	header, err := call(fd, create, name, 0, nil)
	if err != nil {
		return "", fmt.Errorf("make device %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_, again := call(fd, remove, name, 0, nil)
			err = errors.Join(err, again)
		}
	}()
	if _, err := call(fd, load, name, flagReadOnly, spec(target, table, size)); err != nil {
		return "", fmt.Errorf("tell device %s its %s table: %w", name, target, err)
	}
	if _, err := call(fd, resume, name, 0, nil); err != nil {
		return "", fmt.Errorf("start device %s: %w", name, err)
	}
	device := binary.NativeEndian.Uint64(header[deviceAt:])
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(device)), nil
}

// spec describes one target.
func spec(target, table string, size int64) []byte {
	const sector, align = 512, 8
	length := (specSize + len(table) + 1 + align - 1) / align * align
	b := make([]byte, length)
	ne := binary.NativeEndian
	ne.PutUint64(b[8:], uint64(size/sector))
	ne.PutUint32(b[20:], uint32(length))
	copy(b[24:24+typeSize-1], target)
	copy(b[specSize:], table)
	return b
}

// call makes an ioctl and returns the header that the kernel filled in.
func call(fd uintptr, request uint, name string, flags uint32, targets []byte) ([]byte, error) {
	b := make([]byte, headerSize+len(targets))
	ne := binary.NativeEndian
	ne.PutUint32(b, 4) // version 4.0.0 is understood by every kernel since 2.6
	ne.PutUint32(b[12:], uint32(len(b)))
	ne.PutUint32(b[16:], headerSize)
	if targets != nil {
		ne.PutUint32(b[20:], 1)
	}
	ne.PutUint32(b[28:], flags)
	copy(b[nameAt:nameAt+nameSize-1], name)
	copy(b[headerSize:], targets)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(&b[0]))); errno != 0 { //nolint:gosec // the kernel reads and fills it
		return nil, errno
	}
	return b, nil
}
