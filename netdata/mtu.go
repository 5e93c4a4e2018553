package netdata

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/netdata/cni"
)

// mtuRetry is how long a failed subscription waits for the next.
const mtuRetry = time.Second

// mtu is what a pod's interface may have: what leaves by the uplink must fit, with the headers of a
// tunnel if there are tunnels.
func (n *Network) mtu() (int, error) {
	dev, err := netlink.LinkByName(n.cfg.Uplink)
	if err != nil {
		return 0, fmt.Errorf("find uplink %q: %w", n.cfg.Uplink, err)
	}
	return dev.Attrs().MTU - int(n.overhead.Load()), nil
}

// tunnelled notes how much of each packet tunnels take.
func (n *Network) tunnelled(overhead int) {
	before := n.overhead.Swap(int32(overhead))
	if overhead > 0 || before > 0 { // else it is for others to say
		n.acceptOwn(overhead > 0)
	}
	if int(before) == overhead {
		return
	}
	select {
	case n.overheadChanged <- struct{}{}:
	default:
	}
}

// acceptOwn has the stack take packets from the uplink that have the node's own address as their source, or not. The programs
// make such packets of what is for a node port of this node and a pod of another, and leave to the stack what goes through
// a tunnel; those that come from the wire they drop. IPv6 has no such check.
func (n *Network) acceptOwn(accept bool) {
	const subject = "accept-own"
	value := "0"
	if accept {
		value = "1"
	}
	err := setSysctl("net/ipv4/conf/"+n.cfg.Uplink+"/accept_local", value)
	if err == nil || !accept || !n.cfg.has(netip.IPv4Unspecified()) {
		n.notice(subject, "")
		return
	}
	n.notice(subject, fmt.Sprintf("node ports and load balancer addresses of this node do not lead to pods of nodes behind a tunnel: %v", err))
}

// followMTU gives the pods the MTU of the uplink whenever it changes, until ctx ends. The kernel
// says when: nothing is looked at meanwhile.
func (n *Network) followMTU(ctx context.Context, pods *cni.Server) {
	for ctx.Err() == nil {
		err := n.watchMTU(ctx, pods)
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("cannot follow the uplink's MTU, will try again", "err", err)
		timer := time.NewTimer(mtuRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (n *Network) watchMTU(ctx context.Context, pods *cni.Server) error {
	changes, done := make(chan netlink.LinkUpdate), make(chan struct{})
	var lost error
	err := netlink.LinkSubscribeWithOptions(changes, done, netlink.LinkSubscribeOptions{ErrorCallback: func(err error) { lost = err }})
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	defer func() {
		close(done)
		for range changes { // until the subscription has ended
		}
	}()
	// What changed before the subscription is seen here.
	last, err := n.mtu()
	if err != nil {
		return err
	}
	n.applyMTU(pods, last)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.overheadChanged:
			if last, err = n.mtu(); err != nil {
				return err
			}
			n.applyMTU(pods, last)
		case change, open := <-changes:
			if !open {
				return fmt.Errorf("watch interfaces: %w", lost)
			}
			attrs := change.Attrs()
			fits := attrs.MTU - int(n.overhead.Load())
			if attrs.Name == n.cfg.Uplink && fits != last {
				last = fits
				n.log.Info("the uplink's MTU has changed", "uplink", n.cfg.Uplink, "mtu", attrs.MTU)
				n.applyMTU(pods, last)
				if c := n.nodes.Load(); c != nil {
					c.Wake() // the tunnel's device has one of its own
				}
			}
		}
	}
}

func (n *Network) applyMTU(pods *cni.Server, mtu int) {
	const subject = "mtu"
	if err := pods.SetMTU(mtu); err != nil {
		n.notice(subject, fmt.Sprintf("some pods keep another MTU than %d, which fits the uplink: %v", mtu, err))
		return
	}
	n.notice(subject, "")
}
