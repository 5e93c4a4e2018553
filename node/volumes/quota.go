package volumes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quota limits the size of directories.
type quota interface {
	// check says why sizes cannot be limited, nil if they can.
	check() error
	// project returns the number of a directory's project, making it a project
	// if it is none. Everything made in the directory belongs to it.
	project(dir string) (uint32, error)
	// existing returns the number of a directory's project, if it is one.
	existing(dir string) (uint32, bool)
	// set limits a project to a number of bytes; 0 is no limit.
	set(project uint32, bytes int64) error
}

// projectQuota is quota by the project quotas of ext4 and xfs.
type projectQuota struct {
	// dir is the directory whose children get projects.
	dir string
}

// firstProject is the lowest number used here. The kubelet takes numbers from
// 1048577 for its own monitoring; people choose small ones.
const firstProject = 1 << 21

// From linux/quota.h, linux/dqblk_xfs.h and linux/fs.h.
const (
	prjQuota        = 2
	qGetQuota       = 0x800007
	qSetQuota       = 0x800008
	qXGetQStat      = 'X'<<8 + 5
	qifBLimits      = 1
	projectEnforced = 1 << 5
	fsIocGetXattr   = 0x801c581f
	fsIocSetXattr   = 0x401c5820
	xflagInherit    = 0x200
)

// dqblk is struct if_dqblk.
type dqblk struct {
	blockHard, blockSoft, space, inodeHard, inodeSoft, inodes, blockTime, inodeTime uint64
	valid                                                                           uint32
	_                                                                               uint32
}

// fsxattr is struct fsxattr.
type fsxattr struct {
	xflags, extsize, nextents, project, cowextsize uint32
	_                                              [8]byte
}

func (q *projectQuota) check() error {
	// struct fs_quota_stat, of which the flags are wanted: a signed byte of
	// version, one of padding, then 16 bits. It is 80 bytes long.
	var stat [128]byte
	if err := q.quotactl(qXGetQStat, 0, unsafe.Pointer(&stat)); err != nil { //nolint:gosec // the kernel fills it
		return fmt.Errorf("no project quota on the file system of %s (%w): use ext4 with the quota and project features or xfs, mounted with prjquota", q.dir, err)
	}
	if flags := binary.NativeEndian.Uint16(stat[2:]); flags&projectEnforced == 0 {
		return fmt.Errorf("the file system of %s is not mounted with prjquota", q.dir)
	}
	return nil
}

func (q *projectQuota) project(dir string) (uint32, error) {
	if id, ok := q.existing(dir); ok {
		return id, nil
	}
	id, err := q.free()
	if err != nil {
		return 0, err
	}
	attr, err := getAttr(dir)
	if err != nil {
		return 0, fmt.Errorf("read project of %s: %w", dir, err)
	}
	attr.project = id
	attr.xflags |= xflagInherit
	if err := setAttr(dir, attr); err != nil {
		return 0, fmt.Errorf("make %s a project: %w", dir, err)
	}
	return id, nil
}

func (q *projectQuota) existing(dir string) (uint32, bool) {
	attr, err := getAttr(dir)
	if err != nil || attr.project < firstProject || attr.xflags&xflagInherit == 0 {
		return 0, false
	}
	return attr.project, true
}

// free is one more than the highest number in use. The numbers are on the
// directories themselves, so there is no file that could disagree.
func (q *projectQuota) free() (uint32, error) {
	highest := uint32(firstProject - 1)
	for _, pattern := range []string{"*", trashDir + "/*"} {
		dirs, err := filepath.Glob(filepath.Join(q.dir, pattern))
		if err != nil {
			return 0, err
		}
		for _, d := range dirs {
			if id, ok := q.existing(d); ok {
				highest = max(highest, id)
			}
		}
	}
	return highest + 1, nil
}

func (q *projectQuota) set(project uint32, bytes int64) error {
	const block = 1024 // the unit of the interface, whatever the file system's
	limit := dqblk{blockHard: uint64(bytes+block-1) / block, valid: qifBLimits}
	if err := q.quotactl(qSetQuota, project, unsafe.Pointer(&limit)); err != nil { //nolint:gosec // the kernel reads it
		return fmt.Errorf("limit project %d to %d bytes: %w", project, bytes, err)
	}
	return nil
}

// usage returns how many bytes a project uses and may use.
func (q *projectQuota) usage(project uint32) (used, limit int64, err error) {
	var d dqblk
	err = q.quotactl(qGetQuota, project, unsafe.Pointer(&d)) //nolint:gosec // the kernel fills it
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, nil // xfs forgets projects that use nothing and have no limit
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read usage of project %d: %w", project, err)
	}
	return int64(d.space), int64(d.blockHard) * 1024, nil
}

// quotactl uses quotactl_fd(2), which takes a directory where the older call
// wants the name of a block device.
func (q *projectQuota) quotactl(cmd uint32, id uint32, arg unsafe.Pointer) error {
	d, err := os.Open(q.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, d.Fd(), uintptr(cmd)<<8|prjQuota, uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func getAttr(path string) (fsxattr, error) {
	var attr fsxattr
	return attr, attrIoctl(path, fsIocGetXattr, &attr)
}

func setAttr(path string, attr fsxattr) error { return attrIoctl(path, fsIocSetXattr, &attr) }

func attrIoctl(path string, request uintptr, attr *fsxattr) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(attr))) //nolint:gosec // as ioctl(2) has it
	err = f.Close()
	if errno != 0 {
		return errors.Join(errno, err)
	}
	return err
}
