package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filterBackend attaches by cls_bpf filters on a clsact qdisc, for kernels
// before 6.6. A filter holds its program itself and needs no pin.
type filterBackend struct{}

// One fixed handle and priority for each family make FilterReplace an atomic replacement.
const (
	filterName     = "bothy"
	filterHandle   = 1
	filterPriority = 1 // of IPv4; IPv6 has the next one
)

func (filterBackend) name() string { return "cls_bpf" }

func (filterBackend) attach(dev netlink.Link, at hook, prog *ebpf.Program) error {
	name, index := dev.Attrs().Name, dev.Attrs().Index
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc to %s: %w", name, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs:  filterAttrs(index, at),
		Fd:           prog.FD(),
		Name:         filterName,
		DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach to %s of %s: %w", at, name, err)
	}
	return nil
}

func (filterBackend) detach(devName string, at hook) error {
	dev, err := netlink.LinkByName(devName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", devName, err)
	}
	err = netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: filterAttrs(dev.Attrs().Index, at)})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("detach from %s of %s: %w", at, devName, err)
	}
	return nil
}

// Filters lists what the cls_bpf back end has attached to interfaces, by the names that pinned attachments would have.
func Filters() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []string
	for _, dev := range links {
		for _, dir := range []direction{ingress, egress} {
			filters, err := netlink.FilterList(dev, filterAttrs(0, hook{dir: dir}).Parent)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) { // without clsact; gone meanwhile
				return nil, fmt.Errorf("list filters of %s: %w", dev.Attrs().Name, err)
			}
			for _, family := range allFamilies {
				at := hook{dir, family}
				if slices.ContainsFunc(filters, func(f netlink.Filter) bool { return ours(f, at) }) {
					out = append(out, at.name(dev.Attrs().Name))
				}
			}
		}
	}
	return out, nil
}

func ours(f netlink.Filter, at hook) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, filterName) && b.Priority == filterAttrs(0, at).Priority
}

func filterAttrs(index int, at hook) netlink.FilterAttrs {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if at.dir == egress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return netlink.FilterAttrs{
		LinkIndex: index, Parent: parent, Handle: filterHandle,
		Priority: filterPriority + uint16(at.family), Protocol: unix.ETH_P_ALL,
	}
}
