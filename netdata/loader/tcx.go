package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// tcxBackend attaches by links, which are pinned so that they outlive the
// agent. A link goes with its interface; the pin stays and is found empty.
type tcxBackend struct {
	dir string
}

func (tcxBackend) name() string { return "tcx" }

func (b tcxBackend) pin(dev string, at hook) string { return filepath.Join(b.dir, at.name(dev)) }

func (b tcxBackend) attach(dev netlink.Link, at hook, prog *ebpf.Program) error {
	name, index := dev.Attrs().Name, dev.Attrs().Index
	pin := b.pin(name, at)
	done, err := b.update(pin, index, prog)
	if err != nil || done {
		return err
	}
	kind := ebpf.AttachTCXIngress
	if at.dir == egress {
		kind = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: kind})
	if err != nil {
		return fmt.Errorf("attach to %s of %s: %w", at, name, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin link of %s, %s: %w", name, at, err)
	}
	return nil
}

// update replaces the program of a pinned link. It reports false, having removed the
// pin, when there is none or it belongs to an interface that is gone.
func (b tcxBackend) update(pin string, index int, prog *ebpf.Program) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned link %s: %w", pin, err)
	}
	defer l.Close()
	if info, err := l.Info(); err == nil && info.TCX() != nil && int(info.TCX().Ifindex) == index {
		if err := l.Update(prog); err != nil {
			return false, fmt.Errorf("replace program of %s: %w", pin, err)
		}
		return true, nil
	}
	if err := l.Unpin(); err != nil {
		return false, fmt.Errorf("remove pin %s: %w", pin, err)
	}
	return false, nil
}

func (b tcxBackend) detach(dev string, at hook) error {
	return unpin(b.pin(dev, at))
}

// unpin drops a pinned link and with it, being the last reference, the
// attachment.
func unpin(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", path, err)
	}
	defer l.Close()
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("remove pin %s: %w", path, err)
	}
	return nil
}

func probeProgram() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}
