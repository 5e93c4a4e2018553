package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/within"
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
			if err := destroy(unix.IPPROTO_UDP, family, s.ID); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("destroy UDP socket to %s: %w", peer, err))
			}
		}
	}
	return errors.Join(errs...)
}

// The states of TCP sockets that have no peer to be told of anything: see enum in linux/tcp_states.h.
const (
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
)

// abortSockets aborts the connected sockets of a network namespace that are listed, each with its own end as the source. Their
// owners get ECONNABORTED, and the other ends of TCP connections a reset. A namespace that is gone has none.
func abortSockets(network string, sockets map[maps.Tuple]bool) (aborted int, err error) {
	err = within.Path(network, func() error {
		var errs []error
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			for proto, list := range map[maps.Protocol]func(uint8) ([]*netlink.Socket, error){
				maps.TCP: netlink.SocketDiagTCP, maps.UDP: netlink.SocketDiagUDP,
			} {
				all, err := list(family)
				if err != nil && !errors.Is(err, unix.ENOENT) { // a kernel without IPv6
					errs = append(errs, fmt.Errorf("list %s sockets: %w", proto, err))
				}
				for _, s := range all {
					if !sockets[ends(proto, s)] {
						continue
					}
					switch err := destroy(uint8(proto), family, s.ID); {
					case err == nil:
						aborted++
					case !errors.Is(err, unix.ENOENT):
						errs = append(errs, fmt.Errorf("abort %s: %w", ends(proto, s), err))
					}
				}
			}
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return aborted, err
}

// ends are a connected socket's own end and its peer; the zero value for others.
func ends(proto maps.Protocol, s *netlink.Socket) maps.Tuple {
	own, ok := netip.AddrFromSlice(s.ID.Source)
	peer, ok2 := netip.AddrFromSlice(s.ID.Destination)
	if !ok || !ok2 || proto == maps.TCP && (s.State == tcpTimeWait || s.State == tcpClose || s.State == tcpListen) {
		return maps.Tuple{}
	}
	// An IPv6 socket may speak to an IPv4 address.
	return maps.Tuple{
		Src: netip.AddrPortFrom(own.Unmap(), s.ID.SourcePort), Dst: netip.AddrPortFrom(peer.Unmap(), s.ID.DestinationPort), Proto: proto,
	}
}

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	proto, family uint8
	id            netlink.SocketID
}

func (diagRequest) Len() int { return 56 }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, r.proto
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

// destroy aborts the socket that was listed under the id, and no other that has its ends by now: the id has a cookie.
func destroy(proto, family uint8, id netlink.SocketID) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(diagRequest{proto, family, id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
