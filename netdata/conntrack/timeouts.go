package conntrack

import (
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// How long a flow is kept after its last packet. The values for TCP follow
// RFC 5382 (at least 2 h 4 min for an established connection), those for UDP RFC
// 4787 (at least 2 min where both sides have spoken).
const (
	tcpEstablished = 2*time.Hour + 15*time.Minute
	tcpHalfOpen    = time.Minute
	tcpClosed      = 15 * time.Second
	udpReplied     = 2*time.Minute + 30*time.Second
	udpOneWay      = time.Minute
	// SCTP sends a heartbeat on an idle association, by default every 30 s.
	sctpReplied = 3*time.Minute + 30*time.Second
	other       = 30 * time.Second
)

func timeout(proto maps.Protocol, flags maps.FlowFlags) time.Duration {
	switch {
	case (proto == maps.TCP || proto == maps.SCTP) && flags.Closed():
		return tcpClosed
	case (proto == maps.TCP || proto == maps.SCTP) && flags&maps.FlowReplied == 0:
		return tcpHalfOpen
	case proto == maps.SCTP:
		return sctpReplied
	case proto == maps.TCP:
		return tcpEstablished
	case proto == maps.UDP && flags&maps.FlowReplied != 0:
		return udpReplied
	case proto == maps.UDP:
		return udpOneWay
	default:
		return other
	}
}
