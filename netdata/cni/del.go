package cni

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

func (s *Server) del(req request) *types.Error {
	if err := s.forget(req.Attachment); err != nil {
		return internal("disconnect the pod", err)
	}
	return nil
}

// forget removes all there is of an attachment. It works with and without a record,
// and twice; what fails is left in the record for another try.
func (s *Server) forget(a wire.Attachment) error {
	rec, err := s.records.get(a)
	if err != nil {
		// Unreadable: the interface is found by its name all the same.
		s.cfg.Log.Warn("cni: record is damaged, removing it", "container", a.ContainerID, "err", err)
	}
	name := devName(a)
	dev, err := findDev(name)
	if err != nil {
		return err
	}
	if rec == nil && dev == nil {
		return s.records.remove(a)
	}
	index := 0
	if dev != nil {
		index = dev.Attrs().Index
	}
	var gone record
	if rec != nil {
		gone = *rec
	}
	if err := errors.Join(s.closePorts(gone), s.dataplane.Disconnect(name, index, gone.Addrs), removeDev(name)); err != nil {
		return err
	}
	if err := s.records.remove(a); err != nil {
		return err
	}
	s.pools.Release(gone.Addrs)
	if rec != nil {
		s.cfg.Log.Info("pod disconnected", "pod", gone.Pod, "addrs", gone.Addrs, "dev", name)
	}
	return nil
}
