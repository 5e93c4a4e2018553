package loader

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/maps"
)

// constants is struct node_config of bpf/src/config.h, for either family. A test holds it against
// the types that are generated from it.
type constants[A maps.Words] struct {
	NetnsCookie uint64
	Node        A
	Dns         A
	ServiceNet  A
	ServiceMask A
	PodNet      A
	PodMask     A
	Hairpin     A
	SnatMin     uint16
	SnatMax     uint16
	Pad         uint32
}

// configure writes the configuration of the family of nodeIP into the programs' read-only data.
func configure[A maps.Words](into *ebpf.VariableSpec, c Config, nodeIP netip.Addr, cookie uint64) error {
	hairpin := Hairpin4
	if nodeIP.Is6() {
		hairpin = Hairpin6
	}
	out := constants[A]{
		NetnsCookie: cookie,
		Node:        maps.ToWords[A](nodeIP),
		Hairpin:     maps.ToWords[A](hairpin),
		SnatMin:     SNATPortMin,
		SnatMax:     SNATPortMax,
	}
	if dns, ok := sameFamily(nodeIP, c.ClusterDNS); ok {
		out.Dns = maps.ToWords[A](dns)
	}
	out.ServiceNet, out.ServiceMask = netAndMask[A](c.ServiceCIDRs, nodeIP)
	out.PodNet, out.PodMask = netAndMask[A](c.PodCIDRs, nodeIP)
	return setPadded(into, out)
}

// netAndMask of the range that has the family of an address.
func netAndMask[A maps.Words](ranges []netip.Prefix, like netip.Addr) (network, ones A) {
	for _, p := range ranges {
		if p.Addr().Is4() == like.Is4() {
			return maps.ToWords[A](p.Masked().Addr()), mask[A](p.Bits())
		}
	}
	return nothing[A](), allOnes[A]()
}

func sameFamily(like netip.Addr, among []netip.Addr) (netip.Addr, bool) {
	for _, a := range among {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// mask has the given number of leading ones, in network byte order.
func mask[A maps.Words](bits int) A {
	var out A
	for i := range len(out) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(uint64(0xffffffff00000000)>>min(max(bits-32*i, 0), 32)))
		out[i] = binary.NativeEndian.Uint32(b[:])
	}
	return out
}

// nothing under allOnes is the range of the unspecified address alone, to which nobody can send.
func nothing[A maps.Words]() (none A) { return none }

func allOnes[A maps.Words]() A {
	var out A
	return mask[A](32 * len(out))
}

// setPadded fills up what C adds to the end of a struct and Go does not.
func setPadded(into *ebpf.VariableSpec, v any) error {
	data, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		return err
	}
	pad := int(into.Size()) - len(data)
	if pad < 0 || pad >= 8 {
		return fmt.Errorf("the programs' configuration has %d bytes, not %d", into.Size(), len(data))
	}
	return into.Set(append(data, make([]byte, pad)...))
}
