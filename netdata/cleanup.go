package netdata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/cni"
	"github.com/bothy-os/bothy/netdata/loader"
	"github.com/bothy-os/bothy/netdata/nodes"
)

// Cleanup removes everything the wing made in this network namespace and in
// RunDir and BPFDir, for a machine that leaves its cluster. The wing's components
// must not run. Sysctls stay as they are, and so does StateDir.
func Cleanup(cfg Config) error {
	cfg, err := cfg.check()
	if err != nil {
		return err
	}
	errs := []error{removePodDevs(), loader.Cleanup(cfg.BPFDir), loader.DetachFilters(cfg.Uplink), removeRoutes(), nodes.Cleanup()}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		for _, a := range cfg.ClusterDNS {
			errs = append(errs, ignoreMissing(netlink.AddrDel(lo, &netlink.Addr{IPNet: hostPrefix(a)})))
		}
	}
	for _, path := range []string{cfg.socket(), filepath.Join(cfg.CNIConfDir, cni.ConflistName)} {
		errs = append(errs, ignoreMissing(os.Remove(path)))
	}
	errs = append(errs, os.RemoveAll(cfg.runDir()))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the network: %w", err)
	}
	return nil
}

// Forget removes what the wing remembers from one start of the node to the next: the pod ranges of a node that is none any
// more are given to others.
func Forget(cfg Config) error { return ignoreMissing(os.Remove(cfg.podRangeFile())) }

func removePodDevs() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		if cni.IsPodDev(l) {
			errs = append(errs, netlink.LinkDel(l))
		}
	}
	return errors.Join(errs...)
}

func removeRoutes() error {
	return errors.Join(removeRoutesOf(routeProtocol), removeRoutesOf(poolRouteProtocol))
}

func removeRoutesOf(protocol netlink.RouteProtocol) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		filter := &netlink.Route{Protocol: protocol}
		routes, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range routes {
			errs = append(errs, ignoreMissing(netlink.RouteDel(&r)))
		}
	}
	return errors.Join(errs...)
}
