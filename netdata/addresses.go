package netdata

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrRetry is how long a failed subscription waits for the next.
const addrRetry = time.Second

// addrTable is where the programs find the node's addresses.
type addrTable interface {
	SetNodeAddrs([]netip.Addr) error
}

// followAddresses has node ports and host ports on all addresses of the node, until ctx
// ends. The kernel says when they change.
func (n *Network) followAddresses(ctx context.Context, table addrTable) {
	for ctx.Err() == nil {
		err := n.watchAddresses(ctx, table)
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("cannot follow the node's addresses, will try again", "err", err)
		timer := time.NewTimer(addrRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (n *Network) watchAddresses(ctx context.Context, table addrTable) error {
	changes, done := make(chan netlink.AddrUpdate), make(chan struct{})
	var lost error
	err := netlink.AddrSubscribeWithOptions(changes, done, netlink.AddrSubscribeOptions{ErrorCallback: func(err error) { lost = err }})
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer func() {
		close(done)
		for range changes { // until the subscription has ended
		}
	}()
	for {
		// What changed before the subscription is seen here.
		if err := n.applyAddresses(table); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-changes:
			if !open {
				return fmt.Errorf("watch addresses: %w", lost)
			}
		}
	}
}

// applyAddresses leaves out what is not the node's alone: link-local addresses, and those of the
// cluster DNS, which every node has. 127.0.0.1 is served to the node's own processes.
func (n *Network) applyAddresses(table addrTable) error {
	all, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		if !ok || addr.IsLinkLocalUnicast() || slices.Contains(n.clusterDNS, addr) {
			continue
		}
		addrs = append(addrs, addr)
	}
	return table.SetNodeAddrs(addrs)
}
