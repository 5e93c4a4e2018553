package policy

import "net/netip"

// Places says which pods have which addresses, on all nodes: what is watched anyway. For a pod of this
// node, the address it was connected with counts.
func (c *Controller) Places() map[netip.Addr]Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[netip.Addr]Place, len(c.pods))
	for _, p := range c.pods {
		for _, a := range p.Addrs {
			out[a] = Place{p.Namespace, p.Name, p.Node}
		}
	}
	for a, ref := range c.attached {
		out[a] = Place{ref.Namespace, ref.Name, c.node}
	}
	return out
}

// Place is a pod and its node.
type Place struct {
	Namespace, Name, Node string
}
