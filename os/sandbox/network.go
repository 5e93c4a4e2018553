package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nodeInterface is the node's end of its link to the host.
const nodeInterface = "eth0"

// Network is a node's link to the host: a pair of devices with two addresses
// of a small range of their own.
type Network struct {
	// Link is the host's end; its name depends on the node's name only.
	Link string `json:"link"`
	// Bridge is the segment that the host's end is a port of; "" if the link is the node's alone.
	Bridge string `json:"bridge,omitempty"`
	// Prefix, HostAddress and NodeAddress are chosen at the first start and
	// kept: certificates carry the address.
	Prefix      string `json:"prefix"`
	HostAddress string `json:"hostAddress"`
	NodeAddress string `json:"nodeAddress"`
	// Prefix6 and so on are the same for IPv6; "" where the machine has none.
	Prefix6      string `json:"prefix6,omitempty"`
	HostAddress6 string `json:"hostAddress6,omitempty"`
	NodeAddress6 string `json:"nodeAddress6,omitempty"`
	// Forwarding lists the host interfaces whose forwarding was switched on
	// and has to be switched off again; Forwarding6, for IPv6.
	Forwarding  []string `json:"forwarding,omitempty"`
	Forwarding6 []string `json:"forwarding6,omitempty"`
}

// candidates are tried in order; the first that no route of the host touches
// is taken. They come from the shared range of RFC 6598, which homes and
// offices rarely use. Where to begin depends on the state directory, so that
// nodes that come and go on one machine keep out of each other's way.
func candidates(stateDir string, prefixBits int) []netip.Prefix {
	const count = 64
	first := sha256.Sum256([]byte(stateDir))[0]
	var out []netip.Prefix
	for i := range byte(count) {
		third := 64 + (first+i)%count
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 100, third, 0}), prefixBits))
	}
	return out
}

// choose fills in names and addresses. A range kept from an earlier start is
// used again, unless the host has since taken it: then the node moves, which
// costs it new certificates and nothing else.
func (n *Network) choose(node, stateDir string) error {
	n.Link, n.Bridge = linkName(node), ""
	if err := n.chooseRanges(stateDir, singleBits); err != nil {
		return err
	}
	n.NodeAddress, n.NodeAddress6 = after(n.HostAddress), after(n.HostAddress6)
	return nil
}

// after is the next address, "" if there is none.
func after(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	return a.Next().String()
}

// chooseRanges fills in ranges and the host's addresses.
func (n *Network) chooseRanges(stateDir string, prefixBits int) error {
	if err := n.choose4(stateDir, prefixBits); err != nil {
		return err
	}
	return n.choose6(stateDir)
}

func (n *Network) choose4(stateDir string, prefixBits int) error {
	routes, err := usedPrefixes(n.Link, unix.AF_INET)
	if err != nil {
		return err
	}
	if n.Prefix != "" {
		kept, err := netip.ParsePrefix(n.Prefix)
		if err != nil {
			return fmt.Errorf("address range in %s: %w", recordFile, err)
		}
		if !overlapping(kept, routes).IsValid() {
			n.HostAddress = kept.Addr().Next().String()
			return nil
		}
	}
	for _, p := range candidates(stateDir, prefixBits) {
		if overlapping(p, routes).IsValid() {
			continue
		}
		n.Prefix, n.HostAddress = p.String(), p.Addr().Next().String()
		return nil
	}
	return errors.New("every address range bothy could use for the node is taken by routes of this machine")
}

func overlapping(p netip.Prefix, used []netip.Prefix) netip.Prefix {
	for _, u := range used {
		if u.Overlaps(p) {
			return u
		}
	}
	return netip.Prefix{}
}

// usedPrefixes lists the destinations of the host's routes, all tables, except
// default routes and those over our own link.
func usedPrefixes(ownLink string, family int) ([]netip.Prefix, error) {
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	own := -1
	if l, err := netlink.LinkByName(ownLink); err == nil {
		own = l.Attrs().Index
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			out = append(out, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return out, nil
}

// linkName fits the kernel's 15 characters for any node name.
func linkName(node string) string {
	if len(node) <= 9 {
		return "bothy-" + node
	}
	return "bothy-" + shortHash(node)[:9]
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// attach makes the pair of devices and gives one end to process pid's network
// namespace.
func (n *Network) attach(pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Link
	attrs.MTU = uplinkMTU()
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: nodeInterface, PeerNamespace: netlink.NsFd(int(ns)), PeerHardwareAddr: n.hardwareAddress()}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make link %s to the node: %w", n.Link, err)
	}
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	if err := n.connect(host); err != nil {
		return err
	}
	node, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := setUp(node, "lo"); err != nil {
		return err
	}
	if err := n.configure(node, nodeInterface, n.NodeAddress, n.NodeAddress6); err != nil {
		return err
	}
	return node.RouteAdd(&netlink.Route{Gw: net.ParseIP(n.HostAddress)})
}

// hardwareAddress is the same at each start for a node on a segment, whose neighbours would otherwise send to the one
// that it had before for a while. The kernel chooses that of a node that is alone.
func (n *Network) hardwareAddress() net.HardwareAddr {
	a, err := netip.ParseAddr(n.NodeAddress)
	if n.Bridge == "" || err != nil || !a.Is4() {
		return nil
	}
	const local = 0x02 // administered here, not by a manufacturer
	return append(net.HardwareAddr{local, 0xb0}, a.AsSlice()...)
}

// connect readies the host's end: as the node's router, or as a port of the segment.
func (n *Network) connect(host *netlink.Handle) error {
	if n.Bridge == "" {
		return n.configure(host, n.Link, n.HostAddress, n.HostAddress6)
	}
	port, err := host.LinkByName(n.Link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", n.Link, err)
	}
	bridge, err := host.LinkByName(n.Bridge)
	if err != nil {
		return fmt.Errorf("find the nodes' bridge %s: %w", n.Bridge, err)
	}
	if err := host.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("make %s a port of %s: %w", n.Link, n.Bridge, err)
	}
	return host.LinkSetUp(port)
}

// uplinkMTU keeps packets of the node as small as the host's way out wants
// them; 0 leaves the choice to the kernel.
func uplinkMTU() int {
	name, err := defaultInterface(unix.AF_INET)
	if err != nil || name == "" {
		return 0
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0
	}
	return link.Attrs().MTU
}

func (n *Network) configure(h *netlink.Handle, name, address, address6 string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := addAddress(h, link, address, n.Prefix); err != nil {
		return err
	}
	if address6 != "" {
		if err := addAddress(h, link, address6, n.Prefix6); err != nil {
			return err
		}
	}
	return setUp(h, name)
}

func addAddress(h *netlink.Handle, link netlink.Link, address, within string) error {
	prefix, err := netip.ParsePrefix(within)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", address, prefix.Bits()))
	if err != nil {
		return err
	}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else is on the link
	}
	if err := h.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, address, err)
	}
	return nil
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

// detach removes the host's end; the node's end goes with it.
func (n *Network) detach() error {
	var errs []error
	if n.Link != "" {
		if link, err := netlink.LinkByName(n.Link); err == nil {
			// It also goes by itself, with the node's network namespace.
			if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove link %s: %w", n.Link, err))
			}
		}
	}
	errs = append(errs, n.closeUplink())
	return errors.Join(errs...)
}

// openUplink lets the node reach what the host reaches, with the host's
// address, if the host has a default route at all.
func (n *Network) openUplink() error {
	uplink, err := defaultInterface(unix.AF_INET)
	if err != nil || uplink == "" {
		return err
	}
	for _, name := range []string{n.Link, uplink} {
		file := "/proc/sys/net/ipv4/conf/" + name + "/forwarding"
		old, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if string(bytes.TrimSpace(old)) == "1" {
			continue
		}
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("forward packets of the node: %w", err)
		}
		if name != n.Link { // our own link goes away by itself
			n.Forwarding = append(n.Forwarding, name)
		}
	}
	return masquerade(n.Link, n.Prefix)
}

func (n *Network) closeUplink() error {
	for _, name := range n.Forwarding {
		err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/forwarding", []byte("0"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stop forwarding on %s: %w", name, err)
		}
	}
	n.Forwarding = nil
	if err := n.stopForwarding6(); err != nil {
		return err
	}
	return n.unmasquerade()
}

// masquerade translates packets that come from the node's addresses, which are in within, and leave
// by any device but the node's link.
func masquerade(nodeLink, within string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	prefix, err := netip.ParsePrefix(within)
	if err != nil {
		return err
	}
	// Where a header has its source address, and how long that is.
	family, offset, length := nftables.TableFamilyIPv4, uint32(12), uint32(4)
	if prefix.Addr().Is6() {
		family, offset, length = nftables.TableFamilyIPv6, 8, 16
	}
	table := conn.AddTable(&nftables.Table{Family: family, Name: nodeLink})
	chain := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	mask := net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: prefix.Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: interfaceName(nodeLink)},
		&expr.Masq{},
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("translate the node's addresses with nftables (use --isolated to go without): %w", err)
	}
	return nil
}

func (n *Network) unmasquerade() error {
	if n.Link == "" {
		return nil
	}
	conn, err := nftables.New()
	if err != nil {
		return nil //nolint:nilerr // without nftables there is no table to remove
	}
	var errs []error
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		tables, err := conn.ListTablesOfFamily(family)
		if err != nil {
			continue // likewise
		}
		for _, t := range tables {
			if t.Name == n.Link {
				conn.DelTable(t)
				errs = append(errs, conn.Flush())
			}
		}
	}
	return errors.Join(errs...)
}

func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func defaultInterface(family int) (string, error) {
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		isDefault := r.Dst == nil
		if r.Dst != nil {
			bits, _ := r.Dst.Mask.Size()
			isDefault = bits == 0
		}
		if !isDefault {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return "", err
		}
		return link.Attrs().Name, nil
	}
	return "", nil
}
