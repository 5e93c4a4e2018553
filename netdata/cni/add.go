package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bothy-os/bothy/netdata/ipam"
)

func (s *Server) add(req request) (json.RawMessage, *types.Error) {
	started := time.Now()
	if failure := checkPorts(req.ports); failure != nil {
		return nil, failure
	}
	if failure := checkTarget(req); failure != nil {
		return nil, failure
	}
	// The runtime asks again when it did not get the answer.
	if err := s.forget(req.Attachment); err != nil {
		return nil, internal("remove an earlier attempt", err)
	}
	addrs, err := s.pools.Allocate()
	if errors.Is(err, ipam.ErrExhausted) {
		return nil, types.NewError(types.ErrTryAgainLater, err.Error(), "delete pods, or give the node a larger range")
	}
	if err != nil {
		return nil, internal("allocate addresses", err)
	}
	rec := record{
		Attachment: req.Attachment, Pod: req.pod.String(), PodUID: req.pod.UID, Netns: req.netns, Addrs: addrs,
		Dev: devName(req.Attachment), Ports: req.ports,
	}
	if err := s.wire(rec); err != nil {
		s.pools.Release(addrs)
		if undo := s.forget(req.Attachment); undo != nil {
			err = errors.Join(err, fmt.Errorf("and undoing it failed: %w", undo))
		}
		if errors.Is(err, ErrPortTaken) {
			return nil, types.NewError(types.ErrTryAgainLater, err.Error(), "use another hostPort, or delete who has it")
		}
		return nil, internal("connect the pod", err)
	}
	s.cfg.Log.Info("pod connected", "pod", req.pod, "addrs", addrs, "dev", rec.Dev, "took", time.Since(started))
	return s.result(rec, req.cniVersion)
}

// wire makes the pod reachable. The record comes first: what is made after it is
// found and removed again, whenever the agent dies.
func (s *Server) wire(rec record) error {
	if err := s.records.put(rec); err != nil {
		return err
	}
	dev, err := makeVeth(rec, s.mtu)
	if err != nil {
		return err
	}
	if err := s.dataplane.Connect(dev, rec.pod(), rec.Addrs, rec.mac()); err != nil {
		return err
	}
	if err := s.openPorts(rec); err != nil {
		return err
	}
	return connect(dev, rec)
}

func (s *Server) result(rec record, version string) (json.RawMessage, *types.Error) {
	podEnd := 1
	full := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: rec.Dev, Mac: hostMAC.String()},
			{Name: rec.IfName, Mac: rec.mac().String(), Mtu: s.mtu, Sandbox: rec.Netns},
		},
	}
	for _, a := range rec.Addrs {
		gw := gatewayFor(a).AsSlice()
		full.IPs = append(full.IPs, &current.IPConfig{Interface: &podEnd, Address: *host(a), Gateway: gw})
		full.Routes = append(full.Routes, &types.Route{Dst: *everywhere(a), GW: gw})
	}
	out, err := full.GetAsVersion(version)
	if err != nil {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion, "unsupported cniVersion", err.Error())
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, internal("encode result", err)
	}
	return data, nil
}
