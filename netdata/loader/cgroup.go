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

	"github.com/bothy-os/bothy/netdata/maps"
)

type socketHook struct {
	name string
	at   ebpf.AttachType
	prog *ebpf.Program
}

// socketHooks are those of all families. Answers are translated before questions are, so
// that no process sees a backend's address. Two programs share a hook for IPv6 sockets: one is for
// IPv4-mapped addresses, the other leaves these alone.
func (d *Dataplane) socketHooks() []socketHook {
	var hooks []socketHook
	if p := d.programs[maps.IPv4]; p != nil {
		hooks = append(hooks,
			socketHook{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, p.SockRecvmsg},
			socketHook{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, p.mapped.Recvmsg},
			socketHook{"getpeername4", ebpf.AttachCgroupInet4GetPeername, p.SockPeername},
			socketHook{"getpeername6", ebpf.AttachCgroupInet6GetPeername, p.mapped.Peername},
			socketHook{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, p.SockSendmsg},
			socketHook{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, p.mapped.Sendmsg},
			socketHook{"connect4", ebpf.AttachCGroupInet4Connect, p.SockConnect},
			socketHook{"connect6", ebpf.AttachCGroupInet6Connect, p.mapped.Connect},
		)
	}
	if p := d.programs[maps.IPv6]; p != nil {
		hooks = append(hooks,
			socketHook{"recvmsg6" + nativeSix, ebpf.AttachCGroupUDP6Recvmsg, p.SockRecvmsg},
			socketHook{"getpeername6" + nativeSix, ebpf.AttachCgroupInet6GetPeername, p.SockPeername},
			socketHook{"sendmsg6" + nativeSix, ebpf.AttachCGroupUDP6Sendmsg, p.SockSendmsg},
			socketHook{"connect6" + nativeSix, ebpf.AttachCGroupInet6Connect, p.SockConnect},
		)
	}
	return hooks
}

// nativeSix ends the names of the pins of programs for IPv6.
const nativeSix = "-ipv6"

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
