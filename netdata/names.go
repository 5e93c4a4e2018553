package netdata

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bothy-os/bothy/netdata/flows"
	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/policy"
)

// How long names are believed: an address that is not known is looked up again soon, one that is
// may have changed hands.
const (
	namesFresh = 2 * time.Second
	namesStale = 30 * time.Second
)

// names answers who is behind an address from what the node holds anyway: the records of its
// pods, and the Pods and Services it watches. It reads them when it is asked.
type names struct {
	network *Network

	mu       sync.Mutex
	read     time.Time
	local    map[netip.Addr]string // by the records of this node, which are there before the API
	pods     map[netip.Addr]policy.Place
	services map[maps.Frontend]string
}

// Peer implements flows.Names.
func (n *names) Peer(a netip.Addr) flows.Name {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refresh(namesStale)
	name := n.peer(a)
	if name == (flows.Name{}) && n.refresh(namesFresh) {
		name = n.peer(a)
	}
	return name
}

func (n *names) peer(a netip.Addr) flows.Name {
	node := n.network.cfg.NodeName
	if namespace, pod, ok := strings.Cut(n.local[a], "/"); ok {
		return flows.Name{Namespace: namespace, Pod: pod, Node: node}
	}
	if p, ok := n.pods[a]; ok {
		return flows.Name{Namespace: p.Namespace, Pod: p.Name, Node: p.Node}
	}
	if slices.Contains(n.network.cfg.NodeIPs, a) {
		return flows.Name{Node: node}
	}
	return flows.Name{Host: n.network.dns.NameOf(a)}
}

// Service implements flows.Names.
func (n *names) Service(f maps.Frontend) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refresh(namesStale)
	name := n.service(f)
	if name == "" && n.refresh(namesFresh) {
		name = n.service(f)
	}
	return name
}

// service knows node ports under the unspecified address: they are those of every address of
// the node.
func (n *names) service(f maps.Frontend) string {
	if name := n.services[f]; name != "" || !slices.Contains(n.network.cfg.NodeIPs, f.Addr.Addr()) {
		return name
	}
	every := netip.IPv6Unspecified()
	if f.Addr.Addr().Is4() {
		every = netip.IPv4Unspecified()
	}
	f.Addr = netip.AddrPortFrom(every, f.Addr.Port())
	return n.services[f]
}

// refresh reads everything again if that is longer ago than age. What cannot be
// read stays as it was: names are a help, not a promise.
func (n *names) refresh(age time.Duration) bool {
	if time.Since(n.read) < age {
		return false
	}
	n.read = time.Now()
	if server := n.network.server.Load(); server != nil {
		if pods, err := server.PodNames(); err == nil {
			n.local = pods
		}
	}
	if k := n.network.kernel.Load(); k != nil {
		n.pods = k.policy.Places()
	}
	if c := n.network.controller.Load(); c != nil {
		if frontends, err := c.Frontends(); err == nil {
			n.services = frontends
		}
	}
	return true
}

// forget frees what was read; it is read again when somebody asks.
func (n *names) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.local, n.pods, n.services, n.read = nil, nil, nil, time.Time{}
}
