package nodes

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// vni is what all tunnels of a cluster have. It tells nobody anything.
const vni = 1

// Attributes of an IP tunnel's route, see linux/lwtunnel.h. Those for IPv6 have the same numbers.
const (
	attrID  = 1
	attrDst = 2
)

// encap has a route's packets wrapped for an address. It is a type of its own because the library
// knows only the one for IPv6.
type encap struct {
	dst netip.Addr
}

// Type is lwtunnel_encap_types of the kernel.
func (e *encap) Type() int {
	if e.dst.Is4() {
		return nl.LWTUNNEL_ENCAP_IP
	}
	return nl.LWTUNNEL_ENCAP_IP6
}

// Encode writes the attributes.
func (e *encap) Encode() ([]byte, error) {
	id := nl.NewRtAttr(attrID, binary.BigEndian.AppendUint64(nil, vni))
	dst := nl.NewRtAttr(attrDst, e.dst.AsSlice())
	return append(id.Serialize(), dst.Serialize()...), nil
}

// Decode is not needed: routes are compared by what was written.
func (e *encap) Decode([]byte) error { return nil }

func (e *encap) String() string { return fmt.Sprintf("vxlan to %s", e.dst) }

// Equal compares the addresses.
func (e *encap) Equal(x netlink.Encap) bool {
	other, ok := x.(*encap)
	return ok && other.dst == e.dst
}
