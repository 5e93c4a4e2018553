package reconciler

import (
	"fmt"

	"github.com/bothy-os/bothy/reconciler/flux/boot"
)

// fluxRoot shows the boot repository to the Flux API.
type fluxRoot struct{ r *Reconciler }

// revision writes a commit the way Flux does.
func (r *Reconciler) revision(commit string) string {
	if commit == "" {
		return ""
	}
	return r.cfg.Boot.Repository.Branch + "@sha1:" + commit
}

// Source is the present state of fetching and accepting.
func (f fluxRoot) Source() boot.Source {
	s := f.r.Status()
	out := boot.Source{
		URL: s.Source.URL, Branch: s.Source.Branch, Interval: f.r.cfg.Boot.Repository.Interval.Duration,
		FetchError: s.Source.LastError,
	}
	if a := s.Accepted; a != nil {
		out.Revision, out.AcceptedAt = f.r.revision(a.Commit), a.At
		if a.Signer != "" {
			out.Signer = fmt.Sprintf("%s (%s %s)", a.Signer, a.Kind, a.Fingerprint)
		}
	}
	if s.Rejected != nil {
		out.Refused, out.Refusal = f.r.revision(s.Rejected.Commit), s.Rejected.Error()
	}
	f.r.mu.Lock()
	out.Answered = f.r.answered
	f.r.mu.Unlock()
	return out
}

// Sync is the present state of applying.
func (f fluxRoot) Sync() boot.Sync {
	s := f.r.Status()
	out := boot.Sync{Path: "./" + f.r.sitePath(), Phase: boot.Progressing, Reason: "Progressing", Message: s.Message, Inventory: s.Inventory}
	if s.Accepted != nil {
		out.Attempted = f.r.revision(s.Accepted.Commit)
	}
	if s.Applied != nil {
		out.Applied, out.Took = f.r.revision(s.Applied.Commit), max(s.Applied.Took, s.Applied.ReadyAfter)
	}
	switch s.Phase {
	case PhaseReady:
		out.Phase, out.Reason = boot.Ready, "ReconciliationSucceeded"
		out.Message = "Applied revision: " + out.Applied
		if s.FluxComponents > 0 {
			out.Message += fmt.Sprintf(", without %s of Flux's own components: bothy serves the Flux API itself", count(s.FluxComponents))
		}
	case PhaseDegraded:
		out.Phase, out.Reason = boot.Failed, string(s.Reason)
	}
	if p := s.machineProblem(); p != nil && out.Phase != boot.Failed {
		out.Phase, out.Reason, out.Message = boot.Failed, p.Reason, p.Message
	}
	return out
}

// Changed returns a channel that is closed at the next change of either.
func (f fluxRoot) Changed() <-chan struct{} { return f.r.Changed() }

// Trigger asks for a fetch and an apply now.
func (f fluxRoot) Trigger() uint64 { return f.r.request() }

// SuspendSource stops or resumes fetching.
func (f fluxRoot) SuspendSource(suspend bool) {
	f.r.suspend(suspend, &f.r.sourceSuspended, "Fetch", "fetching from the repository", f.r.fetchNow)
}

// SuspendSync stops or resumes applying and undoing drift.
func (f fluxRoot) SuspendSync(suspend bool) {
	f.r.suspend(suspend, &f.r.syncSuspended, "Sync", "applying the site and undoing drift", f.r.applyNow)
}

// suspend sets a switch, says so, and wakes whoever looks at it.
func (r *Reconciler) suspend(suspend bool, flag *bool, name, what string, wakeup chan struct{}) {
	r.mu.Lock()
	same := *flag == suspend
	*flag = suspend
	r.mu.Unlock()
	if same {
		return
	}
	e := Event{Reason: name + "Resumed", Message: what + " goes on: spec.suspend was lifted in the cluster"}
	if suspend {
		e = Event{Reason: name + "Suspended", Warning: true, Message: what + " is suspended: somebody set spec.suspend on flux-system/flux-system in the cluster"}
	}
	r.report(e, func(s *Status) {
		s.Source.Suspended, s.Suspended = r.isSuspended(&r.sourceSuspended), r.isSuspended(&r.syncSuspended)
	})
	wake(wakeup)
}

func (r *Reconciler) isSuspended(flag *bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *flag
}

// reason is why a site is degraded, in the words of the Flux API.
type reason string

const (
	reasonBuild  reason = "BuildFailed"
	reasonApply  reason = "ReconciliationFailed"
	reasonPrune  reason = "PruneFailed"
	reasonHealth reason = "HealthCheckFailed"
)
