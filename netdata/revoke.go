package netdata

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/policy"
)

// podNetworks are the pods' network namespaces. Before there is a CNI server, no pod is known.
func (n *Network) podNetworks() (map[netip.Addr]string, error) {
	server := n.server.Load()
	if server == nil {
		return nil, nil
	}
	return server.Networks()
}

// denied is what policy says of flows. Those with the node itself it leaves to the programs, which
// know whether a packet comes from the node or from who borrows its address.
func (n *Network) denied(inForce *policy.Plan) func(maps.Tuple) bool {
	own := slices.Concat(n.cfg.NodeIPs, n.cfg.ClusterDNS)
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		n.log.Warn("connections that policy has ended end with their next packet only: list addresses", "err", err)
		return func(maps.Tuple) bool { return false }
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own = append(own, ip.Unmap())
		}
	}
	mine := func(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsMulticast() || slices.Contains(own, a) }
	return func(t maps.Tuple) bool {
		return !mine(t.Src.Addr()) && !mine(t.Dst.Addr()) && !inForce.Allows(t)
	}
}
