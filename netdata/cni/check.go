package cni

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// check says whether the pod is still connected the way ADD left it.
func (s *Server) check(req request) *types.Error {
	rec, err := s.records.get(req.Attachment)
	if err != nil {
		return internal("read record", err)
	}
	if rec == nil {
		return types.NewError(types.ErrUnknownContainer, "container is not connected", req.ContainerID)
	}
	dev, err := findDev(rec.Dev)
	if err != nil {
		return internal("find interface", err)
	}
	if dev == nil {
		return internal("check", fmt.Errorf("interface %s is gone; the pod must be made anew", rec.Dev))
	}
	pods, err := s.dataplane.Pods()
	if err != nil {
		return internal("read maps", err)
	}
	for _, a := range rec.Addrs {
		if index, known := pods[a]; !known || index != dev.Attrs().Index {
			return internal("check", fmt.Errorf("address %s does not lead to %s; restart the agent", a, rec.Dev))
		}
	}
	return nil
}
