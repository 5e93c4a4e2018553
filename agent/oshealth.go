package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
)

// osBaseline is how well a machine was before it got another operating system. What did not
// work then need not work after.
type osBaseline struct {
	API     bool `json:"api"`
	Node    bool `json:"node"`
	Applied bool `json:"applied"`
	// Git says that the repository could be read.
	Git bool `json:"git"`
	// Unhealthy are the objects of the site that were not ready.
	Unhealthy []string `json:"unhealthy,omitempty"`
	// Pods are those that were.
	Pods []string `json:"pods,omitempty"`
}

func decodeBaseline(data []byte) (osBaseline, error) {
	var b osBaseline
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("how the machine was before the update: %w", err)
	}
	return b, nil
}

// baseline is how the machine is now.
func (o *osUpdates) baseline() osBaseline {
	st := o.hall.status()
	b := osBaseline{
		API: st.apiReady(), Node: st.Node.Ready, Applied: st.applied(),
		Git: st.Git.Source.LastError == "" && st.Git.Source.LastFetch != nil,
	}
	b.Unhealthy = slices.Sorted(maps.Keys(unhealthy(&st)))
	b.Pods = o.node.readyPods()
	return b
}

// apiReady says whether the API server is; true on a worker, which has none.
func (s *Status) apiReady() bool {
	found := false
	for _, c := range s.Components {
		if c.Name == "kube-apiserver" {
			if found = true; c.State == supervise.Ready {
				return true
			}
		}
	}
	return !found && s.Git.Phase == reconciler.PhaseFollowing
}

// applied says whether the accepted commit is.
func (s *Status) applied() bool {
	g := s.Git
	return g.Phase == reconciler.PhaseFollowing || g.Accepted != nil && g.Applied != nil && g.Applied.Commit == g.Accepted.Commit
}

// unhealthy are the objects that are not ready, and why.
func unhealthy(s *Status) map[string]string {
	out := map[string]string{}
	for _, f := range slices.Concat(s.Git.Objects.Failed, s.Git.Objects.Pending) {
		out[f.ID.String()] = f.Error()
	}
	return out
}

// worse says in what a machine is worse than it was; "" if in nothing. Pods are those of the
// baseline that are there and not ready.
func (b osBaseline) worse(s *Status, pods []string) string {
	switch g := s.Git; {
	case b.API && !s.apiReady():
		return "the API is not ready"
	case b.Node && !s.Node.Ready:
		return "the node is not Ready: " + s.Node.Reason
	case b.Git && g.Source.LastFetch == nil: // since the agent has started
		if g.Source.LastError != "" {
			return "the repository, which could be read before, cannot be: " + g.Source.LastError
		}
		return "the repository was not read yet"
	case b.Applied && !s.applied():
		return "the accepted commit is not applied"
	case b.Node && !s.Pods.Known:
		return "the pods are not known"
	case s.Pods.Stale > 0:
		return fmt.Sprintf("%d pods have not come back", s.Pods.Stale)
	}
	for id, why := range unhealthy(s) {
		if b.Applied && !slices.Contains(b.Unhealthy, id) {
			return why
		}
	}
	if len(pods) > 0 {
		return "pods that were ready are not: " + strings.Join(pods, ", ")
	}
	return ""
}

// awaitHealth returns once the machine has been no worse than before for a while; with what
// is wrong at the end of the time, if it is not.
func (o *osUpdates) awaitHealth(ctx context.Context, before osBaseline, limit time.Duration) (problem string) {
	over := time.NewTimer(limit)
	defer over.Stop()
	var good time.Time
	said := ""
	for {
		changed := o.hall.statusChanged(ctx)
		st := o.hall.status()
		problem = before.worse(&st, o.node.notReady(before.Pods))
		switch {
		case problem != "":
			good = time.Time{}
		case good.IsZero():
			good = time.Now()
		case time.Since(good) >= osSettle:
			return ""
		}
		if problem != said {
			said = problem
			o.log.Info("health of the system on trial", "problem", problem)
			o.set(func(s *OSStatus) { s.Message = problem })
		}
		select {
		case <-over.C:
			if problem == "" {
				problem = "it did not stay healthy"
			}
			return problem
		case <-changed:
			wait(ctx, coalesce)
		case <-time.After(osLook):
		case <-ctx.Done():
			return ""
		}
	}
}

// calm waits until the machine has come to rest, so that the comparison is with what it was
// and not with what it was about to be.
func (o *osUpdates) calm(ctx context.Context) error {
	limit := time.NewTimer(osCalmLimit)
	defer limit.Stop()
	for {
		changed := o.hall.statusChanged(ctx)
		st := o.hall.status()
		why := st.restless()
		if why == "" {
			return nil
		}
		o.set(func(s *OSStatus) { s.Message = "for the machine to come to rest: " + why })
		select {
		case <-limit.C:
			o.log.Warn("the machine does not come to rest, and is started again all the same", "reason", why)
			return nil
		case <-changed:
			wait(ctx, coalesce)
		case <-time.After(osLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restless says what is under way; "" if nothing is.
func (s *Status) restless() string {
	switch s.Git.Phase {
	case reconciler.PhaseReady, reconciler.PhaseDegraded, reconciler.PhaseFollowing:
	default:
		return "the commit is in phase " + string(s.Git.Phase)
	}
	switch {
	case !s.Pods.Known:
		return "the pods are not known yet"
	case s.Pods.Stale > 0:
		return fmt.Sprintf("%d pods have not come back yet", s.Pods.Stale)
	case s.Git.Accepted != nil && s.Git.Phase != reconciler.PhaseFollowing && !s.applied():
		return "the commit is not applied yet"
	}
	return ""
}
