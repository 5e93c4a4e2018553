package netdata

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/cni"
	"github.com/bothy-os/bothy/netdata/maps"
)

// OpenPort writes the row of a pod's host port.
func (p podPorts) OpenPort(port cni.HostPort) error {
	f := maps.Frontend{Addr: netip.AddrPortFrom(port.Addr, port.Port)}
	for _, proto := range []maps.Protocol{maps.TCP, maps.UDP, maps.SCTP} {
		if proto.String() == port.Protocol {
			f.Proto = proto
		}
	}
	err := p.Tables.PutHostPort(f, port.Pod)
	if !errors.Is(err, maps.ErrTaken) {
		return err
	}
	open, readErr := p.Tables.HostPorts()
	if readErr != nil {
		return readErr
	}
	holder, isPort := open[f]
	switch {
	case isPort && holder == port.Pod:
		return nil // an earlier agent opened it
	case isPort:
		return fmt.Errorf("%w by the pod with address %s", cni.ErrPortTaken, holder.Addr())
	default:
		return fmt.Errorf("%w by a Service", cni.ErrPortTaken)
	}
}

// ClosePorts deletes the rows of a pod's host ports.
func (p podPorts) ClosePorts(pod netip.Addr) error { return p.Tables.DeleteHostPorts(pod) }

// PortPods are the pods that have host ports.
func (p podPorts) PortPods() ([]netip.Addr, error) {
	open, err := p.Tables.HostPorts()
	var out []netip.Addr
	for _, pod := range open {
		out = append(out, pod.Addr())
	}
	return out, err
}
