package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/netdata"
	"github.com/bothy-os/bothy/reconciler"
)

// appliers are the components that have nothing to do on a machine that follows.
var appliers = map[string]bool{reconciler.ComponentWorkloads: true, reconciler.ComponentWatches: true, reconciler.ComponentFlux: true}

// identityComponent has the machine make its identity at its first boot, whether anybody asks for it or not.
func (h *hall) identityComponent() supervise.Component {
	return supervise.Component{Name: "identity", Restart: supervise.RunOnce, Run: func(context.Context, func()) error {
		_, err := h.identity()
		return err
	}}
}

// fingerprint is that of this machine, "" if its identity cannot be read, which the component of that name
// complains about.
func (h *hall) fingerprint() string {
	id, err := h.identity()
	if err != nil {
		return ""
	}
	return id.Fingerprint()
}

// objection says why this machine may not run what a commit says; nil if it may.
//
// A site that enrols machines is for these only. A machine that such a site does not know must never start
// a cluster of its own: it may have been a worker yesterday.
func (h *hall) objection(s *site) error {
	enrols := len(s.members.Members) > 0 || h.boot.RequireEnrolment || h.wasWorker()
	switch m := s.machine; {
	case s.identity != "" && s.identity != h.fingerprint():
		return fmt.Errorf("the Machine object %s is for the identity %s, but this machine's is %s: correct spec.identity, or machineName in this machine's boot configuration", m.Metadata.Name, s.identity, h.fingerprint())
	case enrols && (!s.listed || s.identity == ""):
		return fmt.Errorf("this machine is not enrolled: commit the Machine object %s with spec.identity %s (`bothy machine manifest` prints one)", h.env.Name, h.fingerprint())
	case h.wasWorker() && !m.IsWorker():
		return errors.New("this machine is a worker, and cannot become the control plane: commit spec.role worker, or purge its state")
	case m.IsWorker() && h.wasControlPlane():
		return errors.New("this machine has the cluster's keys, and cannot become a worker: commit spec.role control-plane, or purge its state")
	}
	return nil
}

// keepsControlPlane refuses a commit by which the machine that runs the cluster would end it. Workers leave by such a
// commit, and accept it.
func (h *hall) keepsControlPlane(now, next *site) error {
	if now.machine.IsWorker() {
		return nil
	}
	if err := h.objection(next); err != nil {
		return fmt.Errorf("the commit would end the control plane: %w", err)
	}
	return nil
}

// applies says whether this machine applies a commit, and does not leave that to the control plane.
func (h *hall) applies(snap *reconciler.Snapshot) bool {
	s, err := decodeSite(snap, h.boot.Repository.Path, h.env.Name)
	return err == nil && !s.machine.IsWorker() && h.objection(s) == nil
}

// follows says whether another machine applies the accepted commit.
func (h *hall) follows() bool {
	running, _ := h.running()
	return h.heldBack() != nil || running != nil && running.machine.IsWorker()
}

// wasControlPlane and wasWorker tell by what an earlier life has left.
func (h *hall) wasControlPlane() bool {
	return exists(h.paths.ClusterCAKey()) || exists(filepath.Join(h.paths.Etcd(), "member"))
}

func (h *hall) wasWorker() bool { return exists(h.paths.ClusterCA()) && !h.wasControlPlane() }

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// hold notes why nothing runs, and ends what did.
func (h *hall) hold(reason error, s *site) {
	if before := h.setHeld(reason); before != nil && before.Error() == reason.Error() {
		return
	}
	h.log.Warn("nothing runs on this machine", "reason", reason)
	h.standby.discard()
	if err := endKube(h.log); err != nil {
		h.log.Error("end Kubernetes on this machine", "err", err)
	}
	if !h.wasWorker() {
		return
	}
	// Others have its pod range and its load balancer addresses now.
	network, err := h.networkConfig(s)
	if err == nil {
		err = errors.Join(netdata.Cleanup(network), netdata.Forget(network))
	}
	if err != nil {
		h.log.Error("take this machine off the cluster's network", "err", err)
	}
}

// letGo says that something may run.
func (h *hall) letGo() { _ = h.setHeld(nil) }

func (h *hall) setHeld(reason error) (before error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, h.held = h.held, reason
	close(h.changed)
	h.changed = make(chan struct{})
	return before
}

func (h *hall) heldBack() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// describeMachine fills in who the machine is.
func (h *hall) describeMachine(st *Status) {
	st.Node.Identity = h.fingerprint()
	if s := h.currentSite(); s != nil {
		st.Node.Role = s.machine.Spec.Role
		if !s.machine.IsWorker() {
			st.Machines = h.machines.status()
		}
	}
}

// Manifest is the Machine object that enrols a machine.
func Manifest(name, role, fingerprint string, addresses []string) *v1alpha1.Machine {
	m := v1alpha1.NewMachine(name)
	m.Spec.Role, m.Spec.Identity, m.Spec.Addresses = role, fingerprint, addresses
	return m
}
