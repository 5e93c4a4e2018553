package agent

import (
	"fmt"
	"sort"
	"time"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
)

// Event is something that happened on the node.
type Event struct {
	Time    time.Time `json:"time"`
	Source  string    `json:"source"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	Warning bool      `json:"warning,omitempty"`
}

// Events returns the histories of all components and of the way of commits,
// oldest first.
func (s *Status) Events() []Event {
	var out []Event
	for _, c := range s.Components {
		for _, e := range c.Events {
			switch e.State {
			case supervise.Ready, supervise.Done, supervise.Stopped, supervise.Stopping:
				out = append(out, Event{Time: e.Time, Source: c.Name, Reason: string(e.State)})
			case supervise.Backoff, supervise.Failed:
				out = append(out, Event{Time: e.Time, Source: c.Name, Reason: string(e.State), Message: e.Error, Warning: true})
			}
		}
	}
	for _, e := range s.Git.Events {
		out = append(out, Event{Time: e.Time, Source: "git", Reason: e.Reason, Message: e.Message, Warning: e.Warning})
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Time.Before(out[j].Time) })
	return out
}

// Serving reports whether the node is Ready and the newest acceptable commit
// is applied with all its objects healthy.
func (s *Status) Serving() bool {
	return s.Node.Ready && len(s.Blockers()) == 0
}

// Starting returns the names of the components that are on their way up. A node
// can serve before all of them are there: the Flux API, for one, opens after
// the first workloads run.
func (s *Status) Starting() []string {
	var out []string
	for _, c := range s.Components {
		if c.State != supervise.Ready && c.State != supervise.Done && c.LastError == "" {
			out = append(out, c.Name)
		}
	}
	return out
}

// Blockers says what keeps the node from serving, for people.
func (s *Status) Blockers() []string {
	var out []string
	for _, c := range s.Components {
		if c.State != supervise.Ready && c.State != supervise.Done && c.LastError != "" {
			out = append(out, fmt.Sprintf("%s is in state %s: %s", c.Name, c.State, c.LastError))
		}
	}
	if !s.Node.Ready {
		out = append(out, "the node is not Ready: "+s.Node.Reason)
	}
	g := s.Git
	switch {
	case g.Accepted == nil && g.Source.LastError != "":
		out = append(out, "no commit is accepted: "+g.Source.LastError)
	case g.Accepted == nil:
		out = append(out, "no commit is accepted yet")
	case g.Phase == reconciler.PhaseFollowing:
	case g.Applied == nil || g.Applied.Commit != g.Accepted.Commit:
		out = append(out, fmt.Sprintf("commit %s is not applied yet", g.Accepted.Commit))
	case g.Objects.Ready < g.Objects.Total:
		out = append(out, fmt.Sprintf("%d of %d objects are ready", g.Objects.Ready, g.Objects.Total))
	}
	if !s.Pods.Known {
		out = append(out, "the pods are not known yet")
	}
	if s.Pods.Stale > 0 {
		out = append(out, fmt.Sprintf("%d pods have not come back yet", s.Pods.Stale))
	}
	for _, f := range g.Objects.Failed {
		out = append(out, f.Error())
	}
	return out
}
