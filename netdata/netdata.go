package netdata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/netdata/announce"
	"github.com/bothy-os/bothy/netdata/cni"
	"github.com/bothy-os/bothy/netdata/conntrack"
	"github.com/bothy-os/bothy/netdata/dns"
	"github.com/bothy-os/bothy/netdata/flows"
	"github.com/bothy-os/bothy/netdata/loader"
	"github.com/bothy-os/bothy/netdata/maps"
	"github.com/bothy-os/bothy/netdata/nodes"
	"github.com/bothy-os/bothy/netdata/policy"
	"github.com/bothy-os/bothy/netdata/services"
)

const snatPortMin = loader.SNATPortMin

// Network is the network of one node.
type Network struct {
	cfg Config
	// clusterDNS are the cluster's addresses, also of families that this node does not have.
	clusterDNS []netip.Addr
	log        *slog.Logger
	dns        *dns.Server

	kernel     atomic.Pointer[kernel]
	server     atomic.Pointer[cni.Server]
	controller atomic.Pointer[services.Controller]
	announcer  atomic.Pointer[announce.Announcer]
	nodes      atomic.Pointer[nodes.Controller]
	// overhead is how many bytes of a packet to another node tunnels take.
	overhead        atomic.Int32
	overheadChanged chan struct{}
	names           *names
	metrics         *metrics

	mu        sync.Mutex
	podRanges []netip.Prefix
	notices   map[string]string // what an operator should know, by subject
}

// kernel is what the dataplane component hands to the others.
type kernel struct {
	*loader.Dataplane
	flows  *conntrack.Collector
	hub    *flows.Hub
	policy *policy.Controller
	// splice are the namespaces whose pods may be spliced.
	splice []string
	log    *slog.Logger
}

// New checks the configuration. Nothing is touched before the components run.
func New(cfg Config) (*Network, error) {
	given := cfg
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	n := &Network{
		cfg:        cfg,
		clusterDNS: given.ClusterDNS,
		log:        log,
		notices:    map[string]string{},

		overheadChanged: make(chan struct{}, 1),
		dns: dns.New(dns.Config{
			Addrs: cfg.ClusterDNS, Domain: cfg.ClusterDomain, Upstreams: cfg.Upstreams, Kubeconfig: cfg.DNSKubeconfig,
		}, log),
	}
	if lacking := given.lacking(); len(lacking) > 0 {
		n.notices["families"] = fmt.Sprintf("the cluster has %s, but this node has no address of that family: neither have its pods", lacking)
	}
	n.names, n.metrics = &names{network: n}, newMetrics(n)
	return n, nil
}

// Components are to be supervised. "dataplane" is ready without the API; "cni" without it
// when the pod range is known; "policy", "services", "nodes" and "dns" when they have read it. Policy comes
// after the pods that live already have been taken over.
func (n *Network) Components() []supervise.Component {
	return []supervise.Component{
		{Name: "dataplane", Run: n.runDataplane},
		{Name: "cni", After: []string{"dataplane"}, Run: n.runCNI},
		{Name: "policy", After: []string{"cni"}, Run: n.runPolicy},
		{Name: "services", After: []string{"dataplane"}, Run: n.runServices},
		{Name: "nodes", After: []string{"cni"}, Run: n.runNodes},
		{Name: "dns", After: []string{"dataplane"}, Run: n.runDNS},
	}
}

func (n *Network) runDataplane(ctx context.Context, ready func()) error {
	if err := n.prepareNode(); err != nil {
		return err
	}
	dp, err := loader.Load(loader.Config{
		Dir:          n.cfg.BPFDir,
		NodeIPs:      n.cfg.NodeIPs,
		ServiceCIDRs: n.cfg.ServiceCIDRs,
		PodCIDRs:     n.cfg.ClusterPodCIDRs,
		ClusterDNS:   n.cfg.ClusterDNS,
		Sizes:        maps.Sizes{Flows: cmp.Or(n.cfg.flows, flowCapacity())},
		ForceFilter:  n.cfg.forceFilter,
	}, n.log)
	if err != nil {
		return err
	}
	defer dp.Close()
	if err := dp.AttachUplink(n.cfg.Uplink); err != nil {
		return err
	}
	if err := dp.Tables.SetUnmasqueraded(n.cfg.NonMasqueradeCIDRs); err != nil {
		return err
	}
	n.attachSockets(dp)
	n.attachSplice(dp)
	// Nobody listens any more to what the programs told an agent that was killed.
	if err := dp.Tables.Silence(); err != nil {
		return err
	}
	k := &kernel{
		Dataplane: dp, flows: conntrack.New(dp.Tables, n.podNetworks, n.log), hub: n.newHub(dp),
		policy: policy.NewController(dp.Tables, n.cfg.NodeName, n.log), splice: n.cfg.SpliceNamespaces, log: n.log,
	}
	defer k.hub.Close()
	k.policy.ObserveLatency(n.metrics.observePolicy)
	k.policy.OnRevoke(func(inForce *policy.Plan) { k.flows.Revoke(n.denied(inForce)) })
	n.kernel.Store(k)
	ready()
	n.log.Info("dataplane in force", "uplink", n.cfg.Uplink, "addrs", n.cfg.NodeIPs, "backend", dp.Backend())
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { n.followAddresses(ctx, dp.Tables) })
	return k.flows.Run(ctx)
}

// attachSockets does not fail the dataplane: pods do not need it. But the API server reaches
// webhooks and aggregated APIs through Services, so it is an error an operator must see.
func (n *Network) attachSockets(dp *loader.Dataplane) {
	const subject = "host-services"
	err := errors.New("no cgroup2 directory is configured for host processes")
	if n.cfg.HostCgroup != "" {
		err = dp.AttachSockets(n.cfg.HostCgroup)
	}
	if err == nil {
		n.notice(subject, "")
		return
	}
	n.notice(subject, fmt.Sprintf("host processes, the API server among them, do not reach Services: %v", err))
}

// attachSplice does not fail the dataplane: packets find their way without it.
func (n *Network) attachSplice(dp *loader.Dataplane) {
	const subject = "splice"
	var err error
	switch {
	case len(n.cfg.SpliceNamespaces) == 0:
		err = dp.DetachSplice()
	case n.cfg.HostCgroup == "":
		err = errors.New("there is no cgroup2 on this node")
	default:
		err = dp.AttachSplice(n.cfg.HostCgroup)
	}
	if err == nil {
		n.notice(subject, "")
		return
	}
	n.notice(subject, fmt.Sprintf("connections between pods of this node are not spliced as configured, they go as packets: %v", err))
}

func (n *Network) runCNI(ctx context.Context, ready func()) error {
	k := n.kernel.Load()
	if k == nil {
		return errors.New("the dataplane is not loaded")
	}
	mtu, err := n.mtu()
	if err != nil {
		return err
	}
	server := cni.New(cni.Config{
		Socket: n.cfg.socket(), Dir: n.cfg.runDir(), ConfDir: n.cfg.CNIConfDir, MTU: mtu, Log: n.log, Observe: n.metrics.observeCNI,
	}, podPorts{k})
	n.server.Store(server)
	if err := server.Reconcile(); err != nil {
		return err
	}
	// From here on nothing uses what an earlier version laid out differently.
	if err := k.Commit(); err != nil {
		return err
	}
	pods, err := n.findPodRanges(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err := n.cfg.overlap(pods); err != nil {
		return err
	}
	for _, p := range pods {
		if err := unreachable(p); err != nil {
			return err
		}
	}
	n.mu.Lock()
	n.podRanges = pods
	n.mu.Unlock()
	return n.serveCNI(ctx, server, pods, ready)
}

// serveCNI answers the container runtime and keeps the pods' MTU right, until ctx ends.
func (n *Network) serveCNI(ctx context.Context, server *cni.Server, pods []netip.Prefix, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() { n.followMTU(ctx, server) })
	return server.Serve(ctx, pods, ready)
}

func (n *Network) runPolicy(ctx context.Context, ready func()) error {
	k := n.kernel.Load()
	if k == nil {
		return errors.New("the dataplane is not loaded")
	}
	client, err := waitForAPI(ctx, n.cfg.Kubeconfig, probePolicy)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return k.policy.Run(ctx, client, ready)
}

func (n *Network) runServices(ctx context.Context, ready func()) error {
	k := n.kernel.Load()
	if k == nil {
		return errors.New("the dataplane is not loaded")
	}
	client, err := waitForAPI(ctx, n.cfg.Kubeconfig, probeServices)
	if err != nil || ctx.Err() != nil {
		return err
	}
	node := services.Node{Name: n.cfg.NodeName, IPs: n.cfg.NodeIPs, ClusterDNS: n.cfg.ClusterDNS}
	factory := services.NewInformers(client)
	controller := services.NewController(client, factory, k.Tables, k.flows, node, n.log)
	controller.ObserveLatency(n.metrics.observeService)
	n.controller.Store(controller)
	balancers, err := n.balancers(client, factory, k)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range balancers {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return controller.Run(ctx, ready) })
	err = group.Wait()
	factory.Shutdown()
	return err
}

func (n *Network) runNodes(ctx context.Context, ready func()) error {
	k := n.kernel.Load()
	if k == nil {
		return errors.New("the dataplane is not loaded")
	}
	client, err := waitForAPI(ctx, n.cfg.Kubeconfig, probeNodes)
	if err != nil || ctx.Err() != nil {
		return err
	}
	n.mu.Lock()
	self := nodes.Node{Name: n.cfg.NodeName, Addrs: n.cfg.NodeIPs, Pods: n.podRanges}
	n.mu.Unlock()
	controller := nodes.NewController(nodes.Config{
		Self: self, Uplink: n.cfg.Uplink, Encapsulate: n.cfg.Encapsulate, Attach: k.AttachTunnel, Log: n.log,
		Tunnelled: func(overhead int, pods map[netip.Prefix]netip.Addr) error {
			err := k.Tables.SetTunnelled(pods)
			n.tunnelled(overhead)
			return err
		},
	})
	n.nodes.Store(controller)
	return controller.Run(ctx, client, ready)
}

func (n *Network) runDNS(ctx context.Context, ready func()) error {
	return n.dns.Run(ctx, func(ctx context.Context) error {
		_, err := waitForAPI(ctx, n.cfg.DNSKubeconfig, probeNames)
		return err
	}, ready)
}

// notice records something an operator should know; "" withdraws it.
func (n *Network) notice(subject, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == "" {
		delete(n.notices, subject)
		return
	}
	if n.notices[subject] != text {
		n.log.Error(text, "subject", subject)
	}
	n.notices[subject] = text
}

// podPorts makes the kernel's side of a pod's connection out of loader and
// maps, for the CNI server.
type podPorts struct {
	*kernel
}

func (p podPorts) Await(ctx context.Context, pod cni.Pod) error {
	return p.policy.Await(ctx, podRef(pod))
}

// Connect writes the rows before it attaches the programs, which drop what
// comes from an interface without a row.
func (p podPorts) Connect(dev netlink.Link, pod cni.Pod, addrs []netip.Addr, mac net.HardwareAddr) error {
	cookie := p.spliceCookie(pod)
	err := p.policy.Connect(podRef(pod), addrs, func(a netip.Addr, identity uint32) error {
		return p.Tables.PutEndpoint(maps.Endpoint{Addr: a, Ifindex: dev.Attrs().Index, MAC: mac, Identity: identity, Netns: cookie})
	})
	if err != nil {
		return err
	}
	return p.AttachPod(dev)
}

// spliceCookie is 0, which is no namespace, where nothing is spliced.
func (p podPorts) spliceCookie(pod cni.Pod) uint64 {
	if !slices.Contains(p.splice, pod.Namespace) {
		return 0
	}
	cookie, err := cni.NetnsCookie(pod.Netns)
	if err != nil {
		p.log.Warn("connections of a pod are not spliced", "pod", pod, "err", err)
	}
	return cookie
}

func podRef(pod cni.Pod) policy.PodRef {
	return policy.PodRef{Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}
}

func (p podPorts) Disconnect(devName string, index int, addrs []netip.Addr) error {
	if len(addrs) == 0 && index > 0 {
		endpoints, err := p.Tables.Endpoints()
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			if e.Ifindex == index {
				addrs = append(addrs, e.Addr)
			}
		}
	}
	var errs []error
	for _, a := range addrs {
		errs = append(errs, p.Tables.DeleteEndpoint(a))
	}
	if devName != "" {
		errs = append(errs, p.DetachPod(devName))
	}
	for _, a := range addrs {
		p.policy.Disconnect(a)
		p.flows.Forget(a)
	}
	return errors.Join(errs...)
}

func (p podPorts) Pods() (map[netip.Addr]int, error) {
	endpoints, err := p.Tables.Endpoints()
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]int, len(endpoints))
	for _, e := range endpoints {
		out[e.Addr] = e.Ifindex
	}
	return out, nil
}
