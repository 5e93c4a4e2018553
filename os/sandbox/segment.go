package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/internal/durable"
)

// segmentFile is the record of a segment, in the state directory of its first node.
const segmentFile = "segment.json"

// MaxSegment is how many nodes a segment holds.
const MaxSegment = 32

// Segment is a link that several nodes share, so that each reaches the others, and the machine all of them: a bridge on the
// machine. It is no node's own: it stays while nodes come, go and crash.
type Segment struct {
	// Name is the bridge's.
	Name string `json:"name"`
	// Isolated says that nobody on it reaches other networks.
	Isolated bool `json:"isolated,omitempty"`
	// Network has the ranges and the machine's addresses; those of the nodes follow from them.
	Network Network `json:"network"`
	// Out6 says that the machine forwards IPv6 for the nodes.
	Out6 bool `json:"out6,omitempty"`

	stateDir string
}

// OpenSegment makes the link for the nodes of a state directory, or finds it as an earlier start has left it. Addresses
// are kept: a node that was alone before keeps its own.
func OpenSegment(stateDir, name string, isolated bool) (*Segment, error) {
	s, err := FindSegment(stateDir)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &Segment{stateDir: stateDir}
		if n, err := Open(stateDir); err == nil {
			s.Network.Prefix, s.Network.Prefix6 = widen(n.Network.Prefix), n.Network.Prefix6
		}
	}
	s.Name, s.Isolated, s.Network.Link = bridgeName(name), isolated, bridgeName(name)
	if err := s.Network.chooseRanges(stateDir, segmentBits); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(stateDir, 0o700); err != nil {
		return nil, err
	}
	if err := s.save(); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	return s, s.save()
}

// FindSegment reads the segment of a state directory; nil if there is none.
func FindSegment(stateDir string) (*Segment, error) {
	s := &Segment{stateDir: stateDir}
	err := durable.ReadJSON(filepath.Join(stateDir, segmentFile), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return s, err
}

func (s *Segment) save() error {
	return durable.WriteJSON(filepath.Join(s.stateDir, segmentFile), s, 0o600)
}

// build makes what is missing.
func (s *Segment) build() error {
	if _, err := netlink.LinkByName(s.Name); err == nil {
		return nil // from an earlier start, with all that belongs to it
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = s.Name, uplinkMTU()
	snooping := false // there is nobody who would ask for memberships
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make the bridge %s for the nodes: %w", s.Name, err)
	}
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	if err := s.Network.configure(host, s.Name, s.Network.HostAddress, s.Network.HostAddress6); err != nil {
		return err
	}
	if s.Isolated {
		return nil
	}
	if err := s.Network.openUplink(); err != nil {
		return err
	}
	s.Out6, err = s.Network.openUplink6()
	return err
}

// Addresses are those of the i-th node, counted from 0; the second is not valid where the machine has no IPv6.
func (s *Segment) Addresses(i int) (v4, v6 netip.Addr, err error) {
	if v4, err = netip.ParseAddr(s.Network.HostAddress); err != nil {
		return v4, v6, fmt.Errorf("address in %s: %w", segmentFile, err)
	}
	v6, _ = netip.ParseAddr(s.Network.HostAddress6) // "" where there is none
	for range i + 1 {
		v4, v6 = v4.Next(), v6.Next()
	}
	return v4, v6, nil
}

// member is the network of the i-th node.
func (s *Segment) member(node string, i int) (Network, error) {
	v4, v6, err := s.Addresses(i)
	if err != nil {
		return Network{}, err
	}
	n := Network{
		Link: linkName(node), Bridge: s.Name,
		Prefix: s.Network.Prefix, HostAddress: s.Network.HostAddress, NodeAddress: v4.String(),
	}
	if v6.IsValid() {
		n.Prefix6, n.HostAddress6, n.NodeAddress6 = s.Network.Prefix6, s.Network.HostAddress6, v6.String()
	}
	return n, nil
}

// Remove takes the link away, with all that was set up on the machine for it. Nodes on it must have been stopped.
func (s *Segment) Remove() error {
	if err := s.Network.detach(); err != nil {
		return fmt.Errorf("remove the link of the nodes: %w", err)
	}
	return os.Remove(filepath.Join(s.stateDir, segmentFile))
}

// segmentBits is the prefix of a segment, singleBits that of a node's own link.
const (
	segmentBits = 24
	singleBits  = 29
)

// widen makes a segment's range of that of a single node.
func widen(prefix string) string {
	p, err := netip.ParsePrefix(prefix)
	if err != nil || !p.Addr().Is4() {
		return ""
	}
	return netip.PrefixFrom(p.Addr(), segmentBits).Masked().String()
}

// bridgeName fits the kernel's 15 characters for any name.
func bridgeName(name string) string {
	const prefix, room = "bothy0-", 8
	if len(name) <= room {
		return prefix + name
	}
	return prefix + shortHash(name)[:room]
}
