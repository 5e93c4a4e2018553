package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/netdata/maps"
)

// direction is which way a packet passes an interface.
type direction string

const (
	ingress direction = "ingress"
	egress  direction = "egress"
)

// hook is a place of an interface for a program. Each family has its own: a program
// leaves packets of the other to whoever comes next.
type hook struct {
	dir    direction
	family maps.Family
}

func (h hook) String() string { return string(h.dir) + " (" + h.family.String() + ")" }

// name is what the programs of a hook are called, of the interface's and its own.
func (h hook) name(dev string) string {
	name := dev + "-" + string(h.dir)
	if h.family == maps.IPv6 {
		name += nativeSix
	}
	return name
}

// allFamilies is for detaching: a node may have lost a family since it attached.
var allFamilies = []maps.Family{maps.IPv4, maps.IPv6}

// deviceBackend is one way of attaching programs to interfaces.
type deviceBackend interface {
	name() string
	// attach makes prog the program of a family at that hook: it replaces an earlier
	// one atomically, or adds it.
	attach(dev netlink.Link, at hook, prog *ebpf.Program) error
	// detach removes it. An interface or hook that is gone is no error.
	detach(devName string, at hook) error
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
	return d.attach(dev, func(p *programs) (in, out *ebpf.Program) { return p.FromPod, p.ToPod })
}

// DetachPod removes what AttachPod did; the interface may be gone already.
func (d *Dataplane) DetachPod(devName string) error { return detach(d.devices, devName) }

// AttachUplink attaches the programs of the node's uplink.
func (d *Dataplane) AttachUplink(name string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find uplink %q: %w", name, err)
	}
	return d.attach(dev, func(p *programs) (in, out *ebpf.Program) { return p.FromExt, p.ToExt })
}

// AttachTunnel attaches what the uplink has for what comes in to the device of tunnels from other
// nodes. What goes out there is for pods, which know each other's addresses: nothing is to
// be done to it.
func (d *Dataplane) AttachTunnel(dev netlink.Link) error {
	return d.attach(dev, func(p *programs) (in, out *ebpf.Program) { return p.FromExt, nil })
}

// attach attaches a pair of programs of each family, egress first; nil is none.
func (d *Dataplane) attach(dev netlink.Link, pair func(*programs) (in, out *ebpf.Program)) error {
	for _, family := range allFamilies {
		p := d.programs[family]
		if p == nil {
			continue
		}
		in, out := pair(p)
		if out != nil {
			if err := d.devices.attach(dev, hook{egress, family}, out); err != nil {
				return err
			}
		}
		if err := d.devices.attach(dev, hook{ingress, family}, in); err != nil {
			return err
		}
	}
	return nil
}

func detach(from deviceBackend, devName string) error {
	var errs []error
	for _, family := range allFamilies {
		errs = append(errs, from.detach(devName, hook{ingress, family}), from.detach(devName, hook{egress, family}))
	}
	return errors.Join(errs...)
}
