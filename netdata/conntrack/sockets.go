package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// destroyDatagramSockets aborts the UDP sockets of host processes that were
// connected to one of the backends: the socket programs chose the backend at connect, and
// nothing else would ever make them choose again. A read fails with ECONNABORTED, a
// write with EDESTADDRREQ. A process that talks to the same pod and port without the Service
// loses its socket as well: the kernel does not tell the two apart.
func destroyDatagramSockets(backends map[netip.AddrPort]bool) error {
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagUDP(family)
		if err != nil && !errors.Is(err, unix.ENOENT) { // a kernel without IPv6
			errs = append(errs, fmt.Errorf("list UDP sockets: %w", err))
		}
		for _, s := range sockets {
			// An IPv6 socket may speak to an IPv4 address.
			peer, ok := netip.AddrFromSlice(s.ID.Destination)
			if !ok || !backends[netip.AddrPortFrom(peer.Unmap(), s.ID.DestinationPort)] {
				continue
			}
			if err := destroy(family, s.ID); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("destroy UDP socket to %s: %w", peer, err))
			}
		}
	}
	return errors.Join(errs...)
}

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family uint8
	id     netlink.SocketID
}

func (diagRequest) Len() int { return 56 }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(b[4:], 1<<32-1) // any state
	binary.BigEndian.PutUint16(b[8:], r.id.SourcePort)
	binary.BigEndian.PutUint16(b[10:], r.id.DestinationPort)
	copy(b[12:28], r.address(r.id.Source))
	copy(b[28:44], r.address(r.id.Destination))
	binary.NativeEndian.PutUint32(b[44:], r.id.Interface)
	binary.NativeEndian.PutUint32(b[48:], r.id.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.id.Cookie[1])
	return b
}

// address is in the form of the socket's family; the rest of its field stays zero.
func (r diagRequest) address(ip net.IP) []byte {
	if r.family == unix.AF_INET6 {
		return ip.To16()
	}
	return ip.To4()
}

func destroy(family uint8, id netlink.SocketID) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(diagRequest{family, id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
