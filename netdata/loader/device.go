package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// direction is which way a packet passes an interface.
type direction string

const (
	ingress direction = "ingress"
	egress  direction = "egress"
)

// deviceBackend is one way of attaching programs to interfaces.
type deviceBackend interface {
	name() string
	// attach makes prog the program of that hook: it replaces an earlier one
	// atomically, or adds it.
	attach(dev netlink.Link, dir direction, prog *ebpf.Program) error
	// detach removes it. An interface or hook that is gone is no error.
	detach(devName string, dir direction) error
}

func chooseBackend(linkDir string, forceFilter bool) (deviceBackend, error) {
	if forceFilter || !haveTCX() {
		return filterBackend{}, nil
	}
	if err := ensureDir(linkDir); err != nil {
		return nil, err
	}
	return tcxBackend{dir: linkDir}, nil
}

// haveTCX asks the kernel with an attachment to an interface that cannot exist:
// a kernel that knows tcx misses the interface, another one the attach type.
func haveTCX() bool {
	prog, err := probeProgram()
	if err != nil {
		return false
	}
	defer prog.Close()
	_, err = link.AttachTCX(link.TCXOptions{Interface: 1<<31 - 1, Program: prog, Attach: ebpf.AttachTCXIngress})
	return err != nil && !errors.Is(err, ebpf.ErrNotSupported)
}

// AttachPod attaches the programs of a pod's veth, given its host side. Incoming
// traffic of the pod is covered first.
func (d *Dataplane) AttachPod(dev netlink.Link) error {
	if err := d.devices.attach(dev, egress, d.objs.ToPod); err != nil {
		return err
	}
	return d.devices.attach(dev, ingress, d.objs.FromPod)
}

// DetachPod removes what AttachPod did; the interface may be gone already.
func (d *Dataplane) DetachPod(devName string) error {
	return errors.Join(d.devices.detach(devName, ingress), d.devices.detach(devName, egress))
}

// AttachUplink attaches the programs of the node's uplink.
func (d *Dataplane) AttachUplink(name string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find uplink %q: %w", name, err)
	}
	if err := d.devices.attach(dev, egress, d.objs.ToExt); err != nil {
		return err
	}
	return d.devices.attach(dev, ingress, d.objs.FromExt)
}
