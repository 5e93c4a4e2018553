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
	sockets, err := netlink.SocketDiagUDP(unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list UDP sockets: %w", err)
	}
	var errs []error
	for _, s := range sockets {
		peer, ok := netip.AddrFromSlice(s.ID.Destination)
		if !ok || !backends[netip.AddrPortFrom(peer.Unmap(), s.ID.DestinationPort)] {
			continue
		}
		if err := destroy(s.ID); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("destroy UDP socket to %s: %w", peer, err))
		}
	}
	return errors.Join(errs...)
}

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	id netlink.SocketID
}

func (diagRequest) Len() int { return 56 }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(b[4:], 1<<32-1) // any state
	binary.BigEndian.PutUint16(b[8:], r.id.SourcePort)
	binary.BigEndian.PutUint16(b[10:], r.id.DestinationPort)
	copy(b[12:16], ip4(r.id.Source))
	copy(b[28:32], ip4(r.id.Destination))
	binary.NativeEndian.PutUint32(b[44:], r.id.Interface)
	binary.NativeEndian.PutUint32(b[48:], r.id.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.id.Cookie[1])
	return b
}

func ip4(ip net.IP) []byte {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return make([]byte, 4)
}

func destroy(id netlink.SocketID) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(diagRequest{id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
