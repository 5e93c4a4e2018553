package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

// HostPort is a port of the node that leads to a pod.
type HostPort struct {
	// Addr is the address of the node; the unspecified one stands for all of its family.
	Addr netip.Addr
	Port uint16
	// Protocol is TCP, UDP or SCTP.
	Protocol string
	// Pod is of Addr's family.
	Pod netip.AddrPort
}

func (h HostPort) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(h.Addr, h.Port), h.Protocol)
}

// ErrPortTaken says that another pod, or a Service, has the port.
var ErrPortTaken = errors.New("the port is taken")

// HostPorts leads ports of the node to pods.
type HostPorts interface {
	// OpenPort fails with ErrPortTaken if the port leads elsewhere. Opening it again is no
	// error.
	OpenPort(HostPort) error
	// ClosePorts closes all ports that lead to a pod.
	ClosePorts(pod netip.Addr) error
	// PortPods are the pods to which ports lead.
	PortPods() ([]netip.Addr, error)
}

// checkPorts refuses what no port can be made of, before anything is changed.
func checkPorts(mappings []wire.PortMapping) *types.Error {
	for _, m := range mappings {
		if _, err := hostPorts(m, nil); err != nil {
			return types.NewError(types.ErrInvalidNetworkConfig, "portMappings", err.Error())
		}
	}
	return nil
}

// hostPorts is what a mapping asks for: a port in each family of the pod or, if it names an
// address, in the family of that. A mapping without host port asks for nothing.
func hostPorts(m wire.PortMapping, pod []netip.Addr) ([]HostPort, error) {
	if m.HostPort == 0 {
		return nil, nil
	}
	if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return nil, fmt.Errorf("hostPort %d to containerPort %d: ports are 1 to 65535", m.HostPort, m.ContainerPort)
	}
	protocol := strings.ToUpper(m.Protocol)
	switch protocol {
	case "":
		protocol = "TCP"
	case "TCP", "UDP", "SCTP":
	default:
		return nil, fmt.Errorf("hostPort %d: protocol %q is not one of TCP, UDP and SCTP", m.HostPort, m.Protocol)
	}
	var want netip.Addr
	if m.HostIP != "" {
		var err error
		if want, err = netip.ParseAddr(m.HostIP); err != nil {
			return nil, fmt.Errorf("hostPort %d: hostIP: %w", m.HostPort, err)
		}
		want = want.Unmap()
	}
	var out []HostPort
	for _, a := range pod {
		if want.IsValid() && want.Is4() != a.Is4() {
			continue
		}
		at := want
		if !at.IsValid() {
			at = unspecified(a)
		}
		out = append(out, HostPort{at, uint16(m.HostPort), protocol, netip.AddrPortFrom(a, uint16(m.ContainerPort))})
	}
	return out, nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (s *Server) openPorts(rec record) error {
	for _, m := range rec.Ports {
		ports, err := hostPorts(m, rec.Addrs)
		if err != nil {
			return err
		}
		if len(ports) == 0 && m.HostPort != 0 {
			return fmt.Errorf("hostPort %d: the pod has no address of the family of hostIP %s", m.HostPort, m.HostIP)
		}
		for _, p := range ports {
			if err := s.dataplane.OpenPort(p); err != nil {
				return fmt.Errorf("open host port %s: %w", p, err)
			}
		}
	}
	return nil
}

// closePorts need not look for ports of a pod that never had any.
func (s *Server) closePorts(rec record) error {
	if len(rec.Ports) == 0 {
		return nil
	}
	var errs []error
	for _, a := range rec.Addrs {
		errs = append(errs, s.dataplane.ClosePorts(a))
	}
	return errors.Join(errs...)
}

func (s *Server) closeStrayPorts(known map[netip.Addr]bool) error {
	pods, err := s.dataplane.PortPods()
	errs := []error{err}
	for _, a := range pods {
		if !known[a] {
			errs = append(errs, s.dataplane.ClosePorts(a))
		}
	}
	return errors.Join(errs...)
}
