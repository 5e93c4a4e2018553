package flows

import (
	"net/netip"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Names knows who is behind addresses. It must answer at once, from what the node holds, and be
// safe for concurrent use.
type Names interface {
	// Peer names the pod, node or outside host of an address. The zero Name says that it is not
	// known.
	Peer(netip.Addr) Name
	// Service names the Service of a service address as namespace/name, "" if it is none.
	Service(maps.Frontend) string
}

func peer(a netip.AddrPort, names Names) Peer {
	return Peer{Addr: a.Addr(), Port: a.Port(), Name: names.Peer(a.Addr())}
}

// servicePeer names an address that was asked for as a service's, if it is one.
func servicePeer(a netip.AddrPort, proto maps.Protocol, names Names) Peer {
	if name := names.Service(maps.Frontend{Addr: a, Proto: proto}); name != "" {
		return Peer{Addr: a.Addr(), Port: a.Port(), Name: Name{Service: name}}
	}
	return peer(a, names)
}
