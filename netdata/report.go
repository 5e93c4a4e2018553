package netdata

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/netdata/flows"
	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Report is the network in the detail that finding a fault needs. It costs
// walks over the tables: ask when somebody looks, not every second.
type Report struct {
	Status
	// NodeIPs are one of each family that the node has, the first is the one most is expected of.
	NodeIPs []netip.Addr `json:"nodeIPs"`
	Uplink  string       `json:"uplink"`
	// MTU of the uplink and of pods, in bytes.
	MTU int `json:"mtu"`
	// PolicyRevision rises with each change of policies that concerns this node.
	PolicyRevision uint32 `json:"policyRevision"`
	// ServicesComplete says that unknown service addresses are refused: the tables have mirrored
	// the API at least once since the node started.
	ServicesComplete bool          `json:"servicesComplete"`
	Tables           []tables.Fill `json:"tables"`
	DropDetails      []DropReport  `json:"dropDetails,omitempty"`
	// LostEvents counts what `bothy flows` could not be told, ever since the node started.
	LostEvents uint64    `json:"lostEvents"`
	Problems   []Problem `json:"problems,omitempty"`
}

// DropReport is a reason for which packets went no further, and what it means.
type DropReport struct {
	Reason string `json:"reason"`
	// Direction is where it happened: from-pod, to-pod, from-outside, to-outside, socket, other.
	Direction string `json:"direction"`
	Count     uint64 `json:"count"`
	flows.Explanation
}

// Problem is something an operator should look at.
type Problem struct {
	Subject string `json:"subject"`
	What    string `json:"what"`
	// Do is what helps.
	Do string `json:"do,omitempty"`
}

// Report gathers everything; what cannot be read is among the problems.
func (n *Network) Report() (*Report, error) {
	k := n.kernel.Load()
	if k == nil {
		return nil, errNotLoaded
	}
	r := &Report{Status: n.Status(), NodeIPs: n.cfg.NodeIPs, Uplink: n.cfg.Uplink}
	note := func(subject string, err error) {
		if err != nil {
			r.Problems = append(r.Problems, Problem{Subject: subject, What: err.Error()})
		}
	}
	var err error
	r.MTU, err = n.mtu()
	note("uplink", err)
	r.Tables, err = k.Tables.Fills()
	note("tables", err)
	r.LostEvents, err = k.Tables.LostEvents()
	note("tables", err)
	state, err := k.Tables.State()
	note("tables", err)
	r.PolicyRevision, r.ServicesComplete = state.PolicyRevision, state.ServicesSynced
	counts, err := k.Tables.DropCounts()
	note("tables", err)
	for _, c := range counts {
		r.DropDetails = append(r.DropDetails, DropReport{
			Reason: c.Reason.String(), Direction: c.Hook.String(), Count: c.Count, Explanation: flows.Explain(c.Reason.String()),
		})
	}
	r.Problems = append(r.Problems, r.problems()...)
	return r, nil
}

// fullAt is the share of a table's capacity from which on it is a problem.
const fullAt = 0.9

// problems are what the numbers mean for an operator.
func (r *Report) problems() []Problem {
	var out []Problem
	for _, subject := range slices.Sorted(maps.Keys(r.Notices)) {
		out = append(out, Problem{Subject: subject, What: r.Notices[subject]})
	}
	if len(r.PodRanges) == 0 {
		out = append(out, Problem{"pods", "The node has no range for pods yet, so none can start.", "`kubectl get node -o yaml`: spec.podCIDRs is given by the controller manager; `bothy status` shows its state."})
	}
	if !r.Services.Synced {
		out = append(out, Problem{"services", "The agent has not read the Services from the API yet; what was in force stays in force.", "`bothy status` says what the component \"services\" waits for."})
	}
	if !r.Policy.Synced {
		out = append(out, Problem{"policies", "The agent has not read the NetworkPolicies from the API yet; what was in force stays in force, and new pods wait.", "`bothy status` says what the component \"policy\" waits for."})
	}
	if !r.DNS.ClusterNames {
		out = append(out, Problem{"dns", "Names of the cluster are not answered yet.", "`bothy status` says what the component \"dns\" waits for."})
	}
	if len(r.DNS.Upstreams) == 0 {
		out = append(out, Problem{"dns", "Names outside the cluster are refused: no resolver is known.", "Set spec.network.dns.upstreams, or give the machine a resolver."})
	}
	for _, key := range slices.Sorted(maps.Keys(r.Services.Problems)) {
		out = append(out, Problem{"service " + key, r.Services.Problems[key], "Correct the Service; `kubectl describe service` shows it."})
	}
	for _, key := range slices.Sorted(maps.Keys(r.Policy.Problems)) {
		out = append(out, Problem{"policy " + key, r.Policy.Problems[key], "Correct the NetworkPolicy; what of it cannot be read allows nothing."})
	}
	for _, f := range r.Tables {
		if f.Entries >= 0 && float64(f.Entries) >= fullAt*float64(f.Max) {
			out = append(out, fullTable(f))
		}
	}
	return out
}

func fullTable(f tables.Fill) Problem {
	p := Problem{Subject: "table " + f.Table, What: fmt.Sprintf("%d of %d rows are in use.", f.Entries, f.Max)}
	switch strings.TrimSuffix(f.Table, "6") {
	case "ct", "nats", "affinities", "datagram_peers":
		p.Do = "The oldest flows give way to new ones: long-lived idle connections may have to be opened anew. `bothy flows --table` shows who has so many; a machine with more memory gets larger tables."
	default:
		p.Do = "What does not fit is not in force, and is named by the Service or pod it belongs to. Run fewer of them per node or cluster."
	}
	return p
}

// ServiceEntry is what the services table holds of one address.
type ServiceEntry struct {
	// Service is the namespace/name that the API knows the address by, "" if none.
	Service  string         `json:"service,omitempty"`
	Address  netip.AddrPort `json:"address"`
	Protocol string         `json:"protocol"`
	// Affinity is the session affinity timeout, 0 for none.
	Affinity time.Duration `json:"affinityNanoseconds,omitempty"`
	Backends []flows.Peer  `json:"backends"`
}

// ServiceTable lists what the programs hold, not what the API says, by Service, address and protocol.
func (n *Network) ServiceTable() ([]ServiceEntry, error) {
	k := n.kernel.Load()
	if k == nil {
		return nil, errNotLoaded
	}
	defer n.names.forget()
	rows, err := k.Tables.Services()
	if err != nil {
		return nil, err
	}
	out := make([]ServiceEntry, 0, len(rows))
	for f, row := range rows {
		backends, err := k.Tables.ReadSlots(tables.FamilyOf(f.Addr.Addr()), row.Base, row.Count)
		if err != nil {
			return nil, err
		}
		e := ServiceEntry{
			Service: n.names.Service(f), Address: f.Addr, Protocol: f.Proto.String(),
			Affinity: time.Duration(row.Affinity) * time.Second, Backends: make([]flows.Peer, 0, len(backends)),
		}
		for _, b := range backends {
			e.Backends = append(e.Backends, flows.Peer{Addr: b.Addr(), Port: b.Port(), Name: n.names.Peer(b.Addr())})
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b ServiceEntry) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Address.Compare(b.Address), strings.Compare(a.Protocol, b.Protocol))
	})
	return out, nil
}

// EndpointEntry is what the tables hold of a pod on this node.
type EndpointEntry struct {
	flows.Peer
	// Interface is the host side of the pod's veth; its index alone if it is gone.
	Interface string `json:"interface"`
	MAC       string `json:"mac"`
	// Identity is the number policy knows the pod by.
	Identity uint32 `json:"identity"`
}

// EndpointTable lists the pods that the programs know, by name and address.
func (n *Network) EndpointTable() ([]EndpointEntry, error) {
	k := n.kernel.Load()
	if k == nil {
		return nil, errNotLoaded
	}
	defer n.names.forget()
	endpoints, err := k.Tables.Endpoints()
	if err != nil {
		return nil, err
	}
	out := make([]EndpointEntry, 0, len(endpoints))
	for _, e := range endpoints {
		dev := fmt.Sprintf("#%d, gone", e.Ifindex)
		if link, err := net.InterfaceByIndex(e.Ifindex); err == nil {
			dev = link.Name
		}
		out = append(out, EndpointEntry{
			Peer:      flows.Peer{Addr: e.Addr, Name: n.names.Peer(e.Addr)},
			Interface: dev, MAC: e.MAC.String(), Identity: e.Identity,
		})
	}
	slices.SortFunc(out, func(a, b EndpointEntry) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod), a.Addr.Compare(b.Addr))
	})
	return out, nil
}
