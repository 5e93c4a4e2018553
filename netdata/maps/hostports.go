package maps

import (
	"errors"
	"fmt"
	"net/netip"
)

// hostPortSlots is how many slots at the end of each array are kept for host ports, so
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
		backends, err := t.ReadSlots(f.Family(), r.Base, r.Count)
		if err != nil {
			return nil, err
		}
		out[f] = backends[0]
	}
	return out, nil
}

func (t *Tables) hostPortRows() (map[Frontend]ServiceRow, error) {
	rows, err := t.allServices()
	for f, r := range rows {
		if r.Flags&serviceHostPort == 0 {
			delete(rows, f)
		}
	}
	return rows, err
}

// PutHostPort leads a frontend to a pod of the same family. It fails with [ErrTaken] when the
// frontend exists.
func (t *Tables) PutHostPort(f Frontend, pod netip.AddrPort) error {
	rows, err := t.hostPortRows()
	if err != nil {
		return err
	}
	used := map[uint32]bool{}
	for g, r := range rows {
		if g.Family() == f.Family() {
			used[r.Base] = true
		}
	}
	first := t.SlotCapacity(f.Family())
	slot := first
	for used[slot] {
		slot++
	}
	if slot == first+hostPortSlots {
		return fmt.Errorf("host port %s: all %d host ports of the node are in use", f, hostPortSlots)
	}
	if err := t.WriteSlots(slot, []netip.AddrPort{pod}); err != nil {
		return err
	}
	if err := t.PutService(f, ServiceRow{Base: slot, Count: 1, Flags: serviceHostPort}, true); err != nil {
		return fmt.Errorf("host port: %w", err)
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
