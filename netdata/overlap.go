package netdata

import (
	"errors"
	"fmt"
	"net/netip"
)

// overlap says which of the node's ranges have addresses in common: then one of two owners would
// never be reached. A pod range that is not known yet overlaps nothing.
func (c Config) overlap(pods netip.Prefix) error {
	const remedy = "choose ranges that do not overlap in spec.network of the Cluster"
	var errs []error
	for _, s := range c.ServiceCIDRs {
		if pods.IsValid() && pods.Overlaps(s) {
			errs = append(errs, fmt.Errorf("the pod range %s overlaps the Service range %s: %s", pods, s, remedy))
		}
		if s.Contains(c.NodeIP) {
			errs = append(errs, fmt.Errorf("the node's address %s is in the Service range %s: %s", c.NodeIP, s, remedy))
		}
	}
	if pods.IsValid() && pods.Contains(c.NodeIP) {
		errs = append(errs, fmt.Errorf("the node's address %s is in the pod range %s: %s", c.NodeIP, pods, remedy))
	}
	return errors.Join(errs...)
}
