package netdata

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/netdata/announce"
	"github.com/bothy-os/bothy/netdata/pool"
	"github.com/bothy-os/bothy/netdata/services"
)

// balancers are what Services of type LoadBalancer need beside their rows: addresses, and
// somebody who answers for them. Without pools there is nothing to do, and no node is watched.
func (n *Network) balancers(
	client kubernetes.Interface, factory informers.SharedInformerFactory, k *kernel,
) ([]func(context.Context) error, error) {
	if len(n.cfg.Pools) == 0 {
		return nil, k.Tables.SetAnnounced(nil, nil)
	}
	known, err := pool.NewAllocator(n.cfg.Pools)
	if err != nil {
		return nil, err
	}
	allocate, err := pool.NewController(client, factory, n.cfg.Pools, n.cfg.NodeName, n.log)
	if err != nil {
		return nil, err
	}
	endpointSlices := factory.Discovery().V1().EndpointSlices().Informer()
	announcer, err := announce.New(announce.Config{
		Node: n.cfg.NodeName, InPool: known.Holds, Uplink: n.announceUplink, Log: n.log,
		Slices: func(service string) ([]*discoveryv1.EndpointSlice, error) {
			return services.SlicesOf(endpointSlices.GetIndexer(), service)
		},
	}, factory, k.Tables)
	if err != nil {
		return nil, err
	}
	n.announcer.Store(announcer)
	return []func(context.Context) error{allocate.Run, announcer.Run}, nil
}

// announceUplink finds the uplink and has it hear neighbour solicitations: those for an IPv6
// address go to a group that an interface without that address does not listen to.
func (n *Network) announceUplink() (announce.Uplink, error) {
	dev, err := netlink.LinkByName(n.cfg.Uplink)
	if err != nil {
		return announce.Uplink{}, fmt.Errorf("find uplink %q: %w", n.cfg.Uplink, err)
	}
	attrs := dev.Attrs()
	if attrs.Allmulti == 0 && n.cfg.has(netip.IPv6Unspecified()) {
		if err := netlink.LinkSetAllmulticastOn(dev); err != nil {
			return announce.Uplink{}, fmt.Errorf("have %q receive multicast: %w", n.cfg.Uplink, err)
		}
	}
	return announce.Uplink{Index: attrs.Index, MAC: attrs.HardwareAddr}, nil
}
