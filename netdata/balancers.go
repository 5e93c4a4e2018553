package netdata

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/netdata/announce"
	"github.com/bothy-os/bothy/netdata/pool"
	"github.com/bothy-os/bothy/netdata/services"
)

// balancers are what Services of type LoadBalancer need beside their rows: addresses, and
// somebody who answers for them. Without pools there is nothing to do, and no node is watched.
func (n *Network) balancers(
	client kubernetes.Interface, factory informers.SharedInformerFactory, k *kernel,
) ([]func(context.Context) error, error) {
	if err := routePools(n.cfg); err != nil {
		return nil, err
	}
	if len(n.cfg.Pools) == 0 {
		return nil, k.Tables.SetAnnounced(nil, nil)
	}
	known, err := pool.NewAllocator(n.cfg.Pools)
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
	if n.cfg.Reader {
		return []func(context.Context) error{announcer.Run}, nil
	}
	allocate, err := pool.NewController(client, factory, n.cfg.Pools, n.cfg.NodeName, n.log)
	if err != nil {
		return nil, err
	}
	return []func(context.Context) error{allocate.Run, announcer.Run}, nil
}

// routePools has the stack refuse what arrives for an address of a pool and no program
// translated: a port that no Service has. Otherwise it would be sent back to where it came from.
func routePools(cfg Config) error {
	if err := removeRoutesOf(poolRouteProtocol); err != nil {
		return err
	}
	for _, p := range cfg.Pools {
		for _, text := range p.Addresses {
			r, err := v1alpha1.ParseAddressRange(text)
			if err != nil {
				return fmt.Errorf("pool %s: %w", p.Name, err)
			}
			if !cfg.has(r.First) {
				continue
			}
			for _, prefix := range r.Prefixes() {
				route := unreachableRoute(prefix)
				route.Protocol = poolRouteProtocol
				if err := netlink.RouteReplace(route); err != nil {
					return fmt.Errorf("add unreachable route for %s of pool %s: %w", prefix, p.Name, err)
				}
			}
		}
	}
	return nil
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
