package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

type socketHook struct {
	name string
	at   ebpf.AttachType
	prog *ebpf.Program
}

func (d *Dataplane) socketHooks() []socketHook {
	// Answers are translated before questions are, so that no process sees a
	// backend's address.
	return []socketHook{
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, d.objs.SockRecvmsg},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, d.objs.MappedRecvmsg},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, d.objs.SockPeername},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, d.objs.MappedPeername},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, d.objs.SockSendmsg},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, d.objs.MappedSendmsg},
		{"connect4", ebpf.AttachCGroupInet4Connect, d.objs.SockConnect},
		{"connect6", ebpf.AttachCGroupInet6Connect, d.objs.MappedConnect},
	}
}

// AttachSockets attaches the socket programs to a cgroup2 directory: processes in it
// and below reach Services by connect and sendmsg, as far as they are in the
// node's network namespace.
func (d *Dataplane) AttachSockets(cgroup string) error {
	id, err := cgroupID(cgroup)
	if err != nil {
		return err
	}
	dir := filepath.Join(d.dir, "links")
	if err := ensureDir(dir); err != nil {
		return err
	}
	for _, h := range d.socketHooks() {
		if err := attachSocket(cgroup, id, filepath.Join(dir, "cgroup-"+h.name), h); err != nil {
			return err
		}
	}
	return nil
}

// DetachSockets removes what AttachSockets did.
func (d *Dataplane) DetachSockets() error {
	var errs []error
	for _, h := range d.socketHooks() {
		errs = append(errs, unpin(filepath.Join(d.dir, "links", "cgroup-"+h.name)))
	}
	return errors.Join(errs...)
}

func attachSocket(cgroup string, id uint64, pin string, h socketHook) error {
	old, err := link.LoadPinnedLink(pin, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open pinned link %s: %w", pin, err)
	}
	if err == nil {
		defer old.Close()
		// A link of a cgroup that was removed has no cgroup any more.
		if info, err := old.Info(); err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId == id {
			if err := old.Update(h.prog); err != nil {
				return fmt.Errorf("replace program of %s: %w", pin, err)
			}
			return nil
		}
		if err := old.Unpin(); err != nil {
			return fmt.Errorf("remove pin %s: %w", pin, err)
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.at, Program: h.prog})
	if err != nil {
		return fmt.Errorf("attach %s to %s (is it a cgroup2 directory?): %w", h.name, cgroup, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin link %s: %w", pin, err)
	}
	return nil
}

// cgroupID is the number the kernel knows a cgroup by: the inode of its directory.
func cgroupID(path string) (uint64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("find cgroup: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() {
		return 0, fmt.Errorf("cgroup %s is not a directory", path)
	}
	return sys.Ino, nil
}
