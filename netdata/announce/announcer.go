package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/bothy-os/bothy/netdata/elect"
)

const (
	// gather has the many changes of one event cause one pass.
	gather = 20 * time.Millisecond
	// repeats of a gratuitous announcement, in case one is lost, and the time between them.
	repeats     = 3
	repeatAfter = time.Second
	// retryAfter is how long a failed pass waits for the next.
	retryAfter = time.Second
)

// Table is where the programs look.
type Table interface {
	SetAnnounced(addrs []netip.Addr, mac net.HardwareAddr) error
}

// Uplink is an interface as it is now.
type Uplink struct {
	Index int
	MAC   net.HardwareAddr
}

// Config is what an Announcer needs.
type Config struct {
	// Node is the name of this node.
	Node string
	// InPool reports whether an address is one to announce. Others are left to others.
	InPool func(netip.Addr) bool
	// Uplink is asked before each pass.
	Uplink func() (Uplink, error)
	// Slices returns the EndpointSlices of a Service, a namespace/name.
	Slices func(service string) ([]*discoveryv1.EndpointSlice, error)
	Log    *slog.Logger
}

// Announcer keeps the table true to who is elected for what.
type Announcer struct {
	cfg      Config
	table    Table
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	synced   []cache.InformerSynced
	wake     chan struct{}
	send     func(ifindex int, frame []byte) error

	// localOnly says that a Service wants nodes with endpoints: only then do these matter.
	localOnly atomic.Bool

	mu    sync.Mutex
	owned []netip.Addr
}

// New registers with the informers, which the caller starts.
func New(cfg Config, factory informers.SharedInformerFactory, table Table) (*Announcer, error) {
	a := &Announcer{
		cfg: cfg, table: table, wake: make(chan struct{}, 1), send: send,
		services: factory.Core().V1().Services().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
	}
	poke := func(obj any) {
		if a.matters(obj) {
			a.poke()
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: poke, UpdateFunc: func(before, after any) { poke(before); poke(after) }, DeleteFunc: poke}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(), factory.Core().V1().Nodes().Informer(), factory.Discovery().V1().EndpointSlices().Informer(),
	} {
		registered, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch for announcements: %w", err)
		}
		a.synced = append(a.synced, registered.HasSynced)
	}
	return a, nil
}

// matters keeps the many changes away that have nothing to do with load balancers.
func (a *Announcer) matters(obj any) bool {
	switch o := obj.(type) {
	case *corev1.Service:
		return o.Spec.Type == corev1.ServiceTypeLoadBalancer
	case *discoveryv1.EndpointSlice:
		return a.localOnly.Load()
	default:
		return true
	}
}

func (a *Announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Owned are the addresses that this node announces.
func (a *Announcer) Owned() []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.owned)
}

// Run works until ctx ends. What is announced stays announced: the agent may only be restarting.
func (a *Announcer) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), a.synced...) {
		return nil
	}
	a.poke()
	var repeating sync.WaitGroup
	defer repeating.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		if !sleep(ctx, gather) {
			return nil
		}
		uplink, fresh, err := a.pass()
		if err != nil {
			a.cfg.Log.Warn("load balancer addresses are not announced, will try again", "err", err)
			time.AfterFunc(retryAfter, a.poke)
			continue
		}
		if len(fresh) > 0 {
			a.cfg.Log.Info("announcing load balancer addresses", "addrs", fresh)
			repeating.Go(func() { a.tell(ctx, uplink, fresh) })
		}
	}
}

// pass brings the table up to date and returns the addresses that were not announced from here
// before.
func (a *Announcer) pass() (Uplink, []netip.Addr, error) {
	uplink, err := a.cfg.Uplink()
	if err != nil {
		return uplink, nil, err
	}
	services, err := a.services.List(labels.Everything())
	if err != nil {
		return uplink, nil, err
	}
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return uplink, nil, err
	}
	owned, err := a.elected(services, elect.Candidates(nodes))
	if err != nil {
		return uplink, nil, err
	}
	if err := a.table.SetAnnounced(owned, uplink.MAC); err != nil {
		return uplink, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := slices.DeleteFunc(slices.Clone(owned), func(x netip.Addr) bool { return slices.Contains(a.owned, x) })
	a.owned = owned
	return uplink, fresh, nil
}

// elected are the addresses that this node is to announce, sorted.
func (a *Announcer) elected(services []*corev1.Service, ready []string) ([]netip.Addr, error) {
	a.localOnly.Store(slices.ContainsFunc(services, wantsEndpoints))
	mine := map[netip.Addr]bool{}
	for _, svc := range services {
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		candidates := ready
		if wantsEndpoints(svc) {
			endpoints, err := a.cfg.Slices(svc.Namespace + "/" + svc.Name)
			if err != nil {
				return nil, err
			}
			candidates = withEndpoints(ready, endpoints)
		}
		for _, in := range svc.Status.LoadBalancer.Ingress {
			addr, err := netip.ParseAddr(in.IP)
			if err == nil && a.cfg.InPool(addr) && elect.First(in.IP, candidates) == a.cfg.Node {
				mine[addr] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(mine), netip.Addr.Compare), nil
}

func wantsEndpoints(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// withEndpoints leaves the nodes that have a ready endpoint or, while there is none anywhere, one
// that leaves but still serves.
func withEndpoints(nodes []string, endpointSlices []*discoveryv1.EndpointSlice) []string {
	ready, leaving := map[string]bool{}, map[string]bool{}
	for _, s := range endpointSlices {
		for _, ep := range s.Endpoints {
			c := ep.Conditions
			switch {
			case ep.NodeName == nil:
			case c.Ready == nil || *c.Ready:
				ready[*ep.NodeName] = true
			case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
				leaving[*ep.NodeName] = true
			}
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !ready[n] })
}

// tell sends the gratuitous announcements of addresses that are new here.
func (a *Announcer) tell(ctx context.Context, uplink Uplink, fresh []netip.Addr) {
	for i := range repeats {
		if i > 0 && !sleep(ctx, repeatAfter) {
			return
		}
		var errs []error
		for _, addr := range fresh {
			// It may have gone to another node meanwhile.
			if slices.Contains(a.Owned(), addr) {
				errs = append(errs, a.send(uplink.Index, gratuitous(addr, uplink.MAC)))
			}
		}
		if err := errors.Join(errs...); err != nil {
			a.cfg.Log.Warn("gratuitous announcement", "err", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
