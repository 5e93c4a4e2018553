package flows

import (
	"strconv"
	"strings"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Protocols by the names people use.
var protocols = map[maps.Protocol]string{1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}

func protocol(p maps.Protocol) string {
	if name, ok := protocols[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// tcpFlags names them in the order of their bits.
func tcpFlags(bits uint8) string {
	var out []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

func itoa(port uint16) string { return strconv.Itoa(int(port)) }
