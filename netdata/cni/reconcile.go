package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/netdata/cni/plugin"
)

// Reconcile brings records, interfaces and maps into agreement after a
// start: living pods get this agent's programs, everything that lacks its
// counterpart is removed. Traffic of living pods is not touched.
func (s *Server) Reconcile() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.notes(); err != nil {
		return err
	}
	all, err := s.records.all()
	if err != nil {
		// A damaged record is one of a pod that was being made: its interface is
		// removed below, and the runtime asks for it again.
		s.cfg.Log.Warn("cni: some records are damaged", "err", err)
	}
	var errs []error
	devs, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, rec := range all {
		alive, err := s.revive(rec)
		errs = append(errs, err)
		if alive {
			devs[rec.Dev] = true
			for _, a := range rec.Addrs {
				addrs[a] = true
			}
		}
	}
	errs = append(errs, s.removeStrayDevs(devs), s.removeStrayRows(addrs), s.closeStrayPorts(addrs))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bring pods' interfaces and maps into agreement: %w", err)
	}
	if len(devs) > 0 {
		s.cfg.Log.Info("pods taken over", "pods", len(devs))
	}
	return nil
}

// revive reports whether the pod lives. One whose interface went with its
// namespace is forgotten.
func (s *Server) revive(rec record) (bool, error) {
	dev, err := findDev(rec.Dev)
	if err != nil {
		return false, err
	}
	if dev == nil {
		return false, s.forget(rec.Attachment)
	}
	if err := s.dataplane.Connect(dev, rec.pod(), rec.Addrs, rec.mac()); err != nil {
		return true, err
	}
	if err := s.openPorts(rec); err != nil {
		// Only after the maps were lost can a port have gone to another.
		s.cfg.Log.Error("a pod lost its host ports", "pod", rec.Pod, "err", err)
	}
	return true, connect(dev, rec)
}

func (s *Server) removeStrayDevs(known map[string]bool) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		attrs := l.Attrs()
		if !IsPodDev(l) || known[attrs.Name] {
			continue
		}
		s.cfg.Log.Info("removing a leftover interface", "dev", attrs.Name)
		errs = append(errs, s.dataplane.Disconnect(attrs.Name, attrs.Index, nil), removeDev(attrs.Name))
	}
	return errors.Join(errs...)
}

// IsPodDev reports whether an interface is the host side of a pod's veth.
func IsPodDev(l netlink.Link) bool {
	attrs := l.Attrs()
	return l.Type() == "veth" && strings.HasPrefix(attrs.Name, devPrefix) && len(attrs.Name) == len(devPrefix)+12 &&
		attrs.HardwareAddr.String() == hostMAC.String()
}

func (s *Server) removeStrayRows(known map[netip.Addr]bool) error {
	pods, err := s.dataplane.Pods()
	if err != nil {
		return err
	}
	var errs []error
	for addr, index := range pods {
		if !known[addr] {
			errs = append(errs, s.dataplane.Disconnect("", index, []netip.Addr{addr}))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) workOffNotes() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes()
}

// notes does what the plugin was asked to do while the agent was away.
func (s *Server) notes() error {
	entries, err := os.ReadDir(s.deletedDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read notes of deleted pods: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if a, ok := plugin.ParseNote(e.Name()); ok {
			if err := s.forget(a); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, os.Remove(filepath.Join(s.deletedDir(), e.Name())))
	}
	return errors.Join(errs...)
}
