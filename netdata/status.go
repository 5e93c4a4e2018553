package netdata

import (
	"maps"
	"net/netip"

	"github.com/bothy-os/bothy/netdata/conntrack"
	"github.com/bothy-os/bothy/netdata/dns"
	tables "github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/nodes"
	"github.com/bothy-os/bothy/netdata/policy"
	"github.com/bothy-os/bothy/netdata/services"
)

// Status is the network as an operator sees it.
type Status struct {
	// Backend is how programs are attached to interfaces: "tcx" or "cls_bpf"; ""
	// until they are.
	Backend string `json:"backend"`
	// Attached names the attachments: interface and direction, or the
	// socket hook.
	Attached []string `json:"attached,omitempty"`
	// PodRanges are those of this node, one of each family it has.
	PodRanges []netip.Prefix  `json:"podRanges,omitempty"`
	Pods      int             `json:"pods"`
	Services  services.Status `json:"services"`
	Policy    policy.Status   `json:"policy"`
	// Announced are the load balancer addresses that this node answers for.
	Announced []netip.Addr     `json:"announced,omitempty"`
	DNS       dns.Status       `json:"dns"`
	Flows     conntrack.Status `json:"flows"`
	Nodes     nodes.Status     `json:"nodes"`
	// Drops counts dropped and refused packets by reason, since the node started.
	Drops map[string]uint64 `json:"drops,omitempty"`
	// Notices are things an operator should know, by subject.
	Notices map[string]string `json:"notices,omitempty"`
}

// Status is cheap enough to be asked for every second. What cannot be read is
// left out and named in Notices.
func (n *Network) Status() Status {
	n.mu.Lock()
	s := Status{PodRanges: n.podRanges, Notices: maps.Clone(n.notices), DNS: n.dns.Status()}
	n.mu.Unlock()
	k := n.kernel.Load()
	if k == nil {
		return s
	}
	note := func(err error) {
		if err != nil {
			s.Notices["status"] = err.Error()
		}
	}
	var err error
	s.Backend = k.Backend()
	s.Attached, err = k.Attached()
	note(err)
	endpoints, err := k.Tables.Endpoints()
	note(err)
	s.Pods = countPods(endpoints)
	s.Drops, err = k.Tables.Drops()
	note(err)
	s.Flows = k.flows.Status()
	if c := n.nodes.Load(); c != nil {
		s.Nodes = c.Status()
	}
	s.Policy = k.policy.Status()
	if c := n.controller.Load(); c != nil {
		s.Services = c.Status()
	}
	if a := n.announcer.Load(); a != nil {
		s.Announced = a.Owned()
	}
	return s
}

// countPods counts interfaces: a pod has an address of each family.
func countPods(endpoints []tables.Endpoint) int {
	devs := map[int]bool{}
	for _, e := range endpoints {
		devs[e.Ifindex] = true
	}
	return len(devs)
}
