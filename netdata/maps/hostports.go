package maps

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// hostPortSlots is how many slots at the end of the array are kept for host ports, so
// that a pod can have its rows before anybody knows the Services.
const hostPortSlots = 4096

// HostPorts reads which frontends lead to a pod, and to which port of which.
func (t *Tables) HostPorts() (map[Frontend]netip.AddrPort, error) {
	rows, err := t.hostPortRows()
	if err != nil {
		return nil, err
	}
	out := map[Frontend]netip.AddrPort{}
	for f, r := range rows {
		backends, err := t.ReadSlots(r.Base, r.Count)
		if err != nil {
			return nil, err
		}
		out[f] = backends[0]
	}
	return out, nil
}

func (t *Tables) hostPortRows() (map[Frontend]ServiceRow, error) {
	return t.services(func(f ServiceFlags) bool { return f&serviceHostPort != 0 })
}

// PutHostPort leads a frontend to a pod. It fails with [ErrTaken] when the frontend exists.
func (t *Tables) PutHostPort(f Frontend, pod netip.AddrPort) error {
	rows, err := t.hostPortRows()
	if err != nil {
		return err
	}
	used := map[uint32]bool{}
	for r := range maps.Values(rows) {
		used[r.Base] = true
	}
	slot := t.SlotCapacity()
	for used[slot] {
		slot++
	}
	if slot == t.byID["slots"].MaxEntries() {
		return fmt.Errorf("host port %s: all %d host ports of the node are in use", f, hostPortSlots)
	}
	if err := t.WriteSlots(slot, []netip.AddrPort{pod}); err != nil {
		return err
	}
	row := bpf.IPv4Service{Base: slot, Count: 1, Flags: uint16(serviceHostPort)}
	err = t.byID["services"].Update(serviceKey(f), row, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("host port %s: %w", f, ErrTaken)
	}
	if err != nil {
		return fmt.Errorf("write host port %s: %w", f, err)
	}
	return nil
}

// DeleteHostPorts removes all frontends that lead to a pod.
func (t *Tables) DeleteHostPorts(pod netip.Addr) error {
	ports, err := t.HostPorts()
	if err != nil {
		return err
	}
	var errs []error
	for f, b := range ports {
		if b.Addr() == pod {
			errs = append(errs, t.DeleteService(f))
		}
	}
	return errors.Join(errs...)
}
