package netdata

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bothy-os/bothy/netdata/flows"
	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/services"
)

// How long names are believed: an address that is not known is looked up again soon, one that is
// may have changed hands.
const (
	namesFresh = 2 * time.Second
	namesStale = 30 * time.Second
)

// names answers who is behind an address from what the node holds anyway: the records of its
// pods, and the Services and EndpointSlices it watches. It reads them when it is asked.
type names struct {
	network *Network

	mu       sync.Mutex
	read     time.Time
	pods     map[netip.Addr]string
	services services.Directory
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
	if namespace, pod, ok := strings.Cut(n.pods[a], "/"); ok {
		return flows.Name{Namespace: namespace, Pod: pod, Node: node}
	}
	if p, ok := n.services.Pods[a]; ok {
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
	name := n.services.Frontends[f]
	if name == "" && n.refresh(namesFresh) {
		name = n.services.Frontends[f]
	}
	return name
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
			n.pods = pods
		}
	}
	if c := n.network.controller.Load(); c != nil {
		if d, err := c.Directory(); err == nil {
			n.services = d
		}
	}
	return true
}

// forget frees what was read; it is read again when somebody asks.
func (n *names) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods, n.services, n.read = nil, services.Directory{}, time.Time{}
}
