package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/flags"
	"github.com/bothy-os/bothy/bootstrap/join"
	"github.com/bothy-os/bothy/bootstrap/roster"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/netdata"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

// Identities of the wings towards the API server.
const (
	reconcilerIdentity = "reconciler"
	netdataIdentity    = "netdata"
	dnsIdentity        = "dns"
	metricsIdentity    = "metrics"
	volumesIdentity    = "volumes"
	machineIdentity    = "machine"
	statusIdentity     = "status"
)

// site is what a commit says about this node.
type site struct {
	cluster *v1alpha1.Cluster
	// machine is without who it is: what runs here does not depend on that.
	machine *v1alpha1.Machine
	// identity is what the commit says of this machine's.
	identity string
	// listed says that the commit has a Machine for this node.
	listed bool
	// members are the machines that the commit enrols, workers are the Machines of those without control plane.
	members roster.Roster
	workers []*v1alpha1.Machine
	// telemetry is taken out of cluster: it changes while everything runs.
	telemetry v1alpha1.TelemetrySpec
	// system is taken out of both: what keeps the machine's settings has it.
	system v1alpha1.MachineSystemSpec
	// os is taken out, too: another system than the one that runs is no reason to restart
	// anything before it is there.
	os v1alpha1.OSSpec
}

// decodeSite reads the site's own kinds out of a commit. Missing files mean
// defaults; faulty ones are errors with file, line and field.
func decodeSite(snap *reconciler.Snapshot, sitePath, machine string) (*site, error) {
	s := &site{cluster: v1alpha1.NewCluster(path.Base(sitePath)), machine: v1alpha1.NewMachine(machine)}
	var errs []error
	if f := snap.Cluster; f != nil {
		c, err := v1alpha1.DecodeCluster(f.Path, f.Data)
		if err != nil {
			errs = append(errs, err)
		} else {
			s.cluster = c
		}
	}
	machines, err := decodeMachines(snap)
	errs = append(errs, err)
	s.members = roster.New(machines)
	for _, m := range machines {
		if m.IsWorker() {
			s.workers = append(s.workers, m)
		}
		if m.Metadata.Name == machine {
			s.identity, s.listed = m.Spec.Identity, true
			plain := *m
			plain.Spec.Identity, plain.Spec.Addresses = "", nil
			s.machine = &plain
		}
	}
	s.system = v1alpha1.System(s.cluster, s.machine)
	s.cluster.Spec.System, s.machine.Spec.System = v1alpha1.SystemSpec{}, v1alpha1.MachineSystemSpec{}
	// What the agent itself follows must not restart what the rest is for.
	s.telemetry, s.os = s.cluster.Spec.Telemetry, s.cluster.Spec.OS
	defaults := v1alpha1.NewCluster(s.cluster.Metadata.Name).Spec
	s.cluster.Spec.Telemetry, s.cluster.Spec.GitOps, s.cluster.Spec.OS = defaults.Telemetry, defaults.GitOps, defaults.OS
	return s, errors.Join(errs...)
}

func decodeMachines(snap *reconciler.Snapshot) ([]*v1alpha1.Machine, error) {
	files := make([]v1alpha1.MachineFile, 0, len(snap.Machines))
	for _, f := range snap.Machines {
		files = append(files, v1alpha1.MachineFile{Path: f.Path, Data: f.Data})
	}
	return v1alpha1.DecodeMachines(files)
}

// equal compares what the node's parts are made from. A worker also depends on where the control planes are; a control
// plane does not depend on its workers.
func (s *site) equal(other *site) bool {
	if other == nil {
		return false
	}
	a, errA := json.Marshal([]any{s.cluster, s.machine, s.controlPlanes()})
	b, errB := json.Marshal([]any{other.cluster, other.machine, other.controlPlanes()})
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// controlPlanes are those that a worker asks; nil on a control plane.
func (s *site) controlPlanes() []roster.Member {
	if !s.machine.IsWorker() {
		return nil
	}
	return s.members.ControlPlanes()
}

// validate refuses a commit whose machine half cannot work, before it is
// accepted. It changes nothing.
func (h *hall) validate(_ context.Context, snap *reconciler.Snapshot) error {
	next, err := decodeSite(snap, h.boot.Repository.Path, h.env.Name)
	if err != nil {
		return err
	}
	if err := errors.Join(flags.Validate(next.cluster), checkImagePolicy(snap.Files, withStore(h.env.ImageLayouts))); err != nil {
		return err
	}
	now := h.currentSite()
	if now == nil {
		return nil
	}
	if err := h.keepsControlPlane(now, next); err != nil {
		return err
	}
	return keepsNetwork(now.cluster, next.cluster)
}

// keepsNetwork refuses to renumber a cluster, which Kubernetes cannot do.
func keepsNetwork(now, next *v1alpha1.Cluster) error {
	a, b := now.Spec.Network, next.Spec.Network
	var changed []string
	for _, f := range []struct {
		field    string
		was, now any
		equal    bool
	}{
		{"podCIDRs", a.PodCIDRs, b.PodCIDRs, slices.Equal(a.PodCIDRs, b.PodCIDRs)},
		{"serviceCIDRs", a.ServiceCIDRs, b.ServiceCIDRs, slices.Equal(a.ServiceCIDRs, b.ServiceCIDRs)},
		{"dns.domain", a.DNS.Domain, b.DNS.Domain, a.DNS.Domain == b.DNS.Domain},
		{"dns.address", a.DNS.Address, b.DNS.Address, a.DNS.Address == b.DNS.Address},
	} {
		if !f.equal {
			changed = append(changed, fmt.Sprintf("spec.network.%s: cannot change from %v to %v on a running cluster", f.field, f.was, f.now))
		}
	}
	if len(changed) > 0 {
		// Of what is not written down, some follows from what is: all of it is named.
		return fmt.Errorf("%s; put the old value back, or purge the node to start a new cluster", strings.Join(changed, "; "))
	}
	return nil
}

// runningSite is the part of the node that was built from a site.
type runningSite struct {
	*site
	child   *child
	netdata *netdata.Network
	// keeper is nil on a control plane.
	keeper     *join.Keeper
	supervisor *supervise.Supervisor
}

func (h *hall) newRunningSite(s *site) (*runningSite, error) {
	network, err := h.networkConfig(s)
	if err != nil {
		return nil, err
	}
	r := &runningSite{site: s}
	if r.netdata, err = netdata.New(network); err != nil {
		return nil, err
	}
	r.child = newChild(h.log, h.env, h.standby, newKubeConfig(h.env, network.NodeIPs, s, slices.Concat(rbac, []byte("\n---\n"), r.netdata.SystemObjects())))
	components := []supervise.Component{r.child.component(), h.node.component(kubeComponent)}
	if s.machine.IsWorker() {
		if r.keeper, err = h.newKeeper(s, network.NodeIPs); err != nil {
			return nil, err
		}
		components[0].After = []string{joinComponent}
		components = append(components, supervise.Component{Name: joinComponent, Run: r.keeper.Run})
	}
	components = append(components, r.netdata.Components()...)
	r.supervisor, err = supervise.New(h.log, components...)
	return r, err
}

// networkConfig is what the network of this node follows from.
func (h *hall) networkConfig(s *site) (netdata.Config, error) {
	net := s.cluster.Spec.Network
	dns, err := parseAddresses(net.DNSAddresses())
	if err != nil {
		return netdata.Config{}, fmt.Errorf("spec.network.dns.address: %w", err)
	}
	services, err := parsePrefixes(net.ServiceCIDRs)
	if err != nil {
		return netdata.Config{}, err
	}
	pods, err := parsePrefixes(net.PodCIDRs)
	if err != nil {
		return netdata.Config{}, err
	}
	direct, err := parsePrefixes(net.NonMasqueradeCIDRs)
	if err != nil {
		return netdata.Config{}, err
	}
	nodeIPs, err := nodeAddresses(h.env, pods)
	return netdata.Config{
		StateDir: boot.StateDir, RunDir: boot.RunDir, BPFDir: boot.BPFDir, CNIConfDir: boot.RunDir + "/cni/net.d",
		NodeName: h.env.Name, NodeIPs: nodeIPs, Uplink: h.env.Uplink, HostCgroup: h.env.Cgroup2Dir,
		PodCIDRs: ownRanges(s.machine, pods), ServiceCIDRs: services, NodePortRange: portRange(net.NodePortRange),
		ClusterPodCIDRs: pods, NonMasqueradeCIDRs: direct, SpliceNamespaces: net.SpliceNamespaces,
		Encapsulate: net.Encapsulation == v1alpha1.EncapsulationAlways, Pools: net.LoadBalancer.Pools,
		ClusterDNS: dns, ClusterDomain: net.DNS.Domain, Upstreams: upstreams(net.DNS.Upstreams, h.env.ResolvConf),
		Reader:     s.machine.IsWorker(),
		Kubeconfig: h.paths.Kubeconfig(netdataIdentity), DNSKubeconfig: h.paths.Kubeconfig(dnsIdentity),
		Log: h.log.With("wing", "netdata"),
	}, err
}

// siteComponent keeps what runs in step with the accepted commit.
func (h *hall) siteComponent() supervise.Component {
	return supervise.Component{Name: "site", Grace: siteGrace, Run: func(ctx context.Context, ready func()) error {
		stop := func() {}
		defer func() { stop() }()
		failed := make(chan error, 1)
		paused := false
		for {
			snap, accepted := h.reconciler.Accepted()
			if snap != nil && !paused {
				next, err := decodeSite(snap, h.boot.Repository.Path, h.env.Name)
				if err != nil {
					return fmt.Errorf("commit %s was accepted, but this version of bothy cannot read it: %w", snap.Commit, err)
				}
				if err := enforceImagePolicy(ctx, snap); err != nil {
					return err
				}
				if err := h.tracing.Switch(ctx, next.telemetry.Tracing); err != nil {
					h.log.Warn("tracing", "err", err)
				}
				if err := h.enrol(next); err != nil {
					return err
				}
				if reason := h.objection(next); reason != nil {
					stop()
					stop = func() {}
					h.hold(reason, next)
					ready()
				} else if !next.equal(h.currentSite()) {
					h.letGo()
					stop()
					if stop, err = h.startSite(ctx, next, failed); err != nil {
						return err
					}
					ready()
				}
			}
			select {
			case <-accepted:
			case ask := <-h.pauses:
				if paused = ask.pause; paused {
					stop()
					stop = func() {}
				}
				close(ask.done)
			case err := <-failed:
				return err
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

// pause asks the site component to end what runs, or to go on.
type pause struct {
	pause bool
	done  chan struct{}
}

// pauseSite ends everything that writes to what is kept, or lets it go on. Containers are
// left alone.
func (h *hall) pauseSite(ctx context.Context, on bool) error {
	ask := pause{on, make(chan struct{})}
	select {
	case h.pauses <- ask:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-ask.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if on {
		return endKube(h.log)
	}
	return nil
}

// siteGrace covers the stop of everything in the site.
const siteGrace = kubeGrace * 2

func (h *hall) startSite(ctx context.Context, s *site, failed chan<- error) (stop func(), err error) {
	running, err := h.newRunningSite(s)
	if err != nil {
		return func() {}, err
	}
	h.setSite(running)
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := running.supervisor.Run(ctx); err != nil {
			failed <- err
		}
	})
	return func() {
		cancel()
		done.Wait()
		h.setSite(nil)
	}, nil
}

func (h *hall) setSite(r *runningSite) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.site = r
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hall) running() (*runningSite, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.site, h.changed
}

func (h *hall) currentSite() *site {
	if r, _ := h.running(); r != nil {
		return r.site
	}
	return nil
}

func parsePrefixes(cidrs []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(cidrs))
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parseAddresses(texts []string) ([]netip.Addr, error) {
	out := make([]netip.Addr, 0, len(texts))
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// nodeAddresses are the machine's addresses of the families that the cluster has, in its
// order. One that the machine lacks is left out.
func nodeAddresses(env *boot.Environment, pods []netip.Prefix) ([]netip.Addr, error) {
	have, err := parseAddresses(slices.DeleteFunc([]string{env.Address, env.Address6}, func(a string) bool { return a == "" }))
	if err != nil {
		return nil, fmt.Errorf("the node's addresses in %s: %w", boot.EnvironmentFile, err)
	}
	var out []netip.Addr
	for _, p := range pods {
		for _, a := range have {
			if a.Is4() == p.Addr().Is4() {
				out = append(out, a)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("spec.network.podCIDRs: this machine has the addresses %v, of another family than the cluster's ranges %v", have, pods)
	}
	return out, nil
}

// firstNodeRanges are the ranges the controller manager gives to the first node: the first /24
// and the first /64. Knowing them saves a round trip through the API at first boot.
func firstNodeRanges(pods []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(pods))
	for _, p := range pods {
		bits := 24
		if p.Addr().Is6() {
			bits = 64
		}
		out = append(out, netip.PrefixFrom(p.Addr(), max(p.Bits(), bits)))
	}
	return out
}

// ownRanges are the pod ranges of this node, as far as they are known beforehand: those of other nodes than the first are
// in their Node objects.
func ownRanges(m *v1alpha1.Machine, pods []netip.Prefix) []netip.Prefix {
	if m.IsWorker() {
		return nil
	}
	return firstNodeRanges(pods)
}

// upstreams are the resolvers for names outside the cluster.
func upstreams(configured []string, resolvConf string) []netip.AddrPort {
	if len(configured) == 0 {
		configured = nameservers(resolvConf)
	}
	var out []netip.AddrPort
	for _, u := range configured {
		if a, err := netip.ParseAddr(u); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		} else if ap, err := netip.ParseAddrPort(u); err == nil {
			out = append(out, ap)
		}
	}
	return out
}

// portRange reads a range that was checked when the Cluster was decoded.
func portRange(text string) (r netdata.PortRange) {
	_, _ = fmt.Sscanf(text, "%d-%d", &r.First, &r.Last)
	return r
}
