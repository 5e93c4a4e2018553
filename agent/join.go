package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"

	"github.com/bothy-os/bothy/bootstrap/join"
	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
	"github.com/bothy-os/bothy/internal/supervise"
)

// joinComponent is the name of the component on both sides.
const joinComponent = "join"

// workerParts are the clients that a worker has beside the kubelet.
var workerParts = []string{netdataIdentity, dnsIdentity, volumesIdentity, statusIdentity}

// newKeeper makes a worker's side.
func (h *hall) newKeeper(s *site, nodeIPs []netip.Addr) (*join.Keeper, error) {
	id, err := h.identity()
	if err != nil {
		return nil, err
	}
	client := &join.Client{Identity: id}
	for _, cp := range s.controlPlanes() {
		for _, a := range cp.Addresses {
			client.Peers = append(client.Peers, join.Peer{
				Name: cp.Name, Identity: cp.Identity, Address: netip.AddrPortFrom(a, uint16(s.cluster.Spec.ControlPlane.JoinPort)),
			})
		}
	}
	server := "https://" + apiProxyAddress(s.cluster).String()
	return &join.Keeper{
		Node: h.env.Name, Addresses: nodeIPs, Names: join.Names(workerParts), Client: client,
		Store: pki.NewMemberStore(h.paths, server, time.Now), Log: h.log.With("component", joinComponent),
	}, nil
}

// enrol notes whom the accepted commit makes part of the cluster. It comes before anything else that a commit does, so that
// a machine that leaves is cut off first.
func (h *hall) enrol(s *site) error {
	now, err := h.rosterFile.Read()
	if same := err == nil && reflect.DeepEqual(now, s.members); !same {
		if err := s.members.Write(h.paths.Roster()); err != nil {
			return fmt.Errorf("write the list of enrolled machines: %w", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members, h.workers = s.members, s.workers
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// enrolled are the machines of the accepted commit.
func (h *hall) enrolled() roster.Roster {
	members, _ := h.enrolment()
	return members
}

func (h *hall) enrolment() (roster.Roster, []*v1alpha1.Machine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members, h.workers
}

// enrolmentComponent is the control plane's side: while the site has workers it serves the join endpoint, and keeps
// their Node objects. In a site that enrols nobody it does nothing.
func (h *hall) enrolmentComponent() supervise.Component {
	return supervise.Component{Name: "enrolment", Run: func(ctx context.Context, ready func()) error {
		ready()
		ctx, cancel := context.WithCancel(ctx)
		e := &enroller{hall: h, failed: make(chan error, 1), stopServing: func() {}}
		defer e.all.Wait()
		defer cancel()
		for {
			running, changed := h.running()
			if running != nil && !running.machine.IsWorker() {
				e.follow(ctx, running.cluster)
			}
			select {
			case <-changed:
			case err := <-e.failed:
				return err
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

// enroller is what a control plane does for its workers.
type enroller struct {
	*hall
	all    sync.WaitGroup
	failed chan error

	// port is the join endpoint's, 0 while there is none.
	port        int
	stopServing func()
	keeping     bool
}

// follow brings it in step with the accepted commit.
func (e *enroller) follow(ctx context.Context, cluster *v1alpha1.Cluster) {
	members, workers := e.enrolment()
	e.machines.follow(cluster, workers)
	if !e.keeping && len(members.Members) > 0 {
		e.keeping = true
		e.all.Go(func() { e.machines.run(ctx) })
	}
	port := 0
	if len(workers) > 0 {
		port = cluster.Spec.ControlPlane.JoinPort
	}
	if port == e.port {
		return
	}
	e.stopServing()
	e.port, e.stopServing = port, func() {}
	if port == 0 {
		return
	}
	serving, stop := context.WithCancel(ctx)
	e.stopServing = stop
	e.all.Go(func() {
		if err := e.serveWorkers(serving, port); err != nil {
			select {
			case e.failed <- err:
			case <-serving.Done():
			}
		}
	})
}

// serveWorkers runs the join endpoint. It opens when this node has its pod range, which it takes for granted to be the
// first: no worker may be faster.
func (h *hall) serveWorkers(ctx context.Context, port int) error {
	id, err := h.identity()
	if err != nil {
		return err
	}
	select {
	case <-h.node.registered:
	case <-ctx.Done():
		return nil
	}
	var addresses []netip.AddrPort
	for _, text := range []string{h.env.Address, h.env.Address6} {
		if a, err := netip.ParseAddr(text); err == nil {
			addresses = append(addresses, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	server := join.NewServer(join.ServerConfig{
		Addresses: addresses, Identity: id, Members: h.enrolled, Issuer: pki.NewIssuer(h.paths, time.Now), Parts: workerParts,
		Log: h.log.With("component", joinComponent),
	})
	return server.Run(ctx, func() {})
}
