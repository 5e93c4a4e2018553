package netdata

import (
	"errors"
	"fmt"
	"net/netip"
)

// overlap says which of the node's ranges have addresses in common: then one of two owners would
// never be reached. Pod ranges that are not known yet overlap nothing.
func (c Config) overlap(pods []netip.Prefix) error {
	const remedy = "choose ranges that do not overlap in spec.network of the Cluster"
	var errs []error
	for _, p := range pods {
		for _, s := range c.ServiceCIDRs {
			if p.Overlaps(s) {
				errs = append(errs, fmt.Errorf("the pod range %s overlaps the Service range %s: %s", p, s, remedy))
			}
		}
	}
	for _, ip := range c.NodeIPs {
		for _, p := range pods {
			if p.Contains(ip) {
				errs = append(errs, fmt.Errorf("the node's address %s is in the pod range %s: %s", ip, p, remedy))
			}
		}
		for _, s := range c.ServiceCIDRs {
			if s.Contains(ip) {
				errs = append(errs, fmt.Errorf("the node's address %s is in the Service range %s: %s", ip, s, remedy))
			}
		}
	}
	return errors.Join(errs...)
}
