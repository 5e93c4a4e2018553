package cni

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// SetMTU gives the pods to come, and those that are there, another MTU. A pod whose interface
// cannot be changed keeps its own and is named in the error; it sends packets that
// are too big, and is told so by the stack.
func (s *Server) SetMTU(mtu int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mtu = mtu
	all, err := s.records.all()
	errs := []error{err}
	for _, rec := range all {
		errs = append(errs, changeMTU(rec, mtu))
	}
	return errors.Join(errs...)
}

// changeMTU sets both ends. A pod that is gone meanwhile is no error.
func changeMTU(rec record, mtu int) error {
	dev, err := findDev(rec.Dev)
	if err != nil || dev == nil {
		return err
	}
	if dev.Attrs().MTU == mtu {
		return nil
	}
	ns, err := netns.GetFromPath(rec.Netns)
	if err != nil {
		return fmt.Errorf("change the MTU of pod %s: open network namespace %s: %w", rec.Pod, rec.Netns, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("change the MTU of pod %s: enter network namespace %s: %w", rec.Pod, rec.Netns, err)
	}
	defer h.Close()
	inside, err := h.LinkByName(rec.IfName)
	if err != nil {
		return fmt.Errorf("change the MTU of pod %s: find %s: %w", rec.Pod, rec.IfName, err)
	}
	if err := errors.Join(h.LinkSetMTU(inside, mtu), netlink.LinkSetMTU(dev, mtu)); err != nil {
		return fmt.Errorf("change the MTU of pod %s to %d: %w", rec.Pod, mtu, err)
	}
	return nil
}
