package flows

import (
	"net/netip"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Verdict is what became of a packet.
type Verdict string

// The verdicts.
const (
	// Forwarded went on to its destination.
	Forwarded Verdict = "forwarded"
	// Dropped went no further, and nobody was told.
	Dropped Verdict = "dropped"
	// Refused was answered with a reset, an ICMP error or ECONNREFUSED.
	Refused Verdict = "refused"
)

// What a [Flow] reports.
const (
	// Opened: the first packet of a flow was let through.
	Opened = "opened"
	// Closed and Reset: a connection ended.
	Closed = "closed"
	Reset  = "reset"
	// Connected: a process of the node asked for a service address and was given a backend; the
	// packets are seen as a flow of its own.
	Connected = "connected"
	// Denied: the packet was dropped or refused.
	Denied = "denied"
)

// Flow is one thing that happened to a flow.
type Flow struct {
	Time    time.Time `json:"time"`
	Verdict Verdict   `json:"verdict"`
	// What is one of the constants above.
	What string `json:"what"`
	// Reason names why, for dropped and refused packets; see [Explain].
	Reason string `json:"reason,omitempty"`
	// Protocol is TCP, UDP, SCTP, ICMP, ICMPv6 or a number.
	Protocol string `json:"protocol"`
	From     Peer   `json:"from"`
	To       Peer   `json:"to"`
	// Asked is the service address From asked for, if there is one in between. Of a
	// refused flow it is To.
	Asked *Peer `json:"asked,omitempty"`
	// Hook is where it happened: from-pod, to-pod, from-outside, to-outside, socket;
	// empty for what is noted when a flow begins and ends.
	Hook string `json:"hook,omitempty"`
	// TCPFlags such as SYN,ACK of the packet that was seen.
	TCPFlags string `json:"tcpFlags,omitempty"`
	// Length of a dropped frame in bytes.
	Length int `json:"length,omitempty"`
}

// Peer is one end of a flow.
type Peer struct {
	Addr netip.Addr `json:"addr"`
	// Port is 0 where there is none, or it is not known yet.
	Port uint16 `json:"port,omitempty"`
	Name
}

// Name is who is behind an address.
type Name struct {
	// Namespace and Pod are set for pods.
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	// Service is the namespace/name of a Service whose address it is.
	Service string `json:"service,omitempty"`
	// Node is the node of that name, or the one on which the pod runs.
	Node string `json:"node,omitempty"`
	// Host is the name by which somebody in the cluster asked for the address.
	Host string `json:"host,omitempty"`
}

// String is the shortest form that a reader recognises, with the port.
func (p Peer) String() string {
	var who string
	switch {
	case p.Pod != "":
		who = p.Namespace + "/" + p.Pod
	case p.Service != "":
		who = "service " + p.Service
	case p.Node != "":
		who = "node " + p.Node
	case p.Host != "":
		who = p.Host
	case !p.Addr.IsValid():
		return "unknown"
	default:
		who = p.Addr.String()
		if p.Port != 0 {
			return netip.AddrPortFrom(p.Addr, p.Port).String()
		}
		return who
	}
	if p.Port == 0 {
		return who
	}
	return who + ":" + itoa(p.Port)
}

// describe makes a Flow of an event.
func describe(e *maps.Event, boot time.Time, names Names) Flow {
	f := Flow{
		Time:     boot.Add(e.Time),
		Protocol: protocol(e.Tuple.Proto),
		From:     peer(e.Tuple.Src, names),
		To:       peer(e.Tuple.Dst, names),
		TCPFlags: tcpFlags(e.TCPFlags),
		Length:   e.Length,
	}
	if e.Hook != maps.HookUnknown {
		f.Hook = e.Hook.String()
	}
	asked := e.Asked
	if !asked.IsValid() && e.Kind == maps.EventRefuse {
		asked = e.Tuple.Dst
	}
	if asked.IsValid() {
		p := servicePeer(asked, e.Tuple.Proto, names)
		f.Asked = &p
		if asked == e.Tuple.Dst {
			f.To = p
		}
	}
	f.Verdict, f.What = outcome(e)
	if f.Verdict != Forwarded {
		f.Reason = e.Reason.String()
	}
	return f
}

func outcome(e *maps.Event) (Verdict, string) {
	switch e.Kind {
	case maps.EventDrop:
		return Dropped, Denied
	case maps.EventRefuse:
		return Refused, Denied
	case maps.EventConnect:
		return Forwarded, Connected
	case maps.EventEnd:
		if e.Flow&maps.FlowReset != 0 {
			return Forwarded, Reset
		}
		return Forwarded, Closed
	default:
		return Forwarded, Opened
	}
}
