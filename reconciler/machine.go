package reconciler

import (
	"maps"
	"slices"

	"github.com/bothy-os/bothy/reconciler/history"
)

// MachineProblem is what a commit asks of the machine itself and did not get.
type MachineProblem struct {
	Commit string `json:"commit"`
	// Reason is one word in the style of Kubernetes, Message a sentence.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// MarkMachine says that a part of the machine, such as "os", is not as a commit asks; nil
// that it is. The commit counts as degraded, with an event, in the history and in the Flux
// API, for as long as it is the accepted one.
func (r *Reconciler) MarkMachine(part string, p *MachineProblem) {
	same := false
	change := func(s *Status) {
		before, known := s.machine[part]
		if same = known == (p != nil) && (p == nil || before == *p); same {
			return
		}
		next := maps.Clone(s.machine)
		if next == nil {
			next = map[string]MachineProblem{}
		}
		if delete(next, part); p != nil {
			next[part] = *p
		}
		s.machine, s.Machine = next, nil
		for _, name := range slices.Sorted(maps.Keys(next)) {
			s.Machine = append(s.Machine, next[name])
		}
	}
	r.board.update(change)
	if same || p == nil {
		return
	}
	r.report(Event{Reason: p.Reason, Commit: p.Commit, Warning: true, Message: p.Message}, nil)
	if snap, _ := r.Accepted(); snap != nil && snap.Commit == p.Commit {
		r.finish(snap, history.Degraded, p.Message)
	}
}

// Note adds a line about the machine to the history of events.
func (r *Reconciler) Note(e Event) { r.report(e, nil) }

// machineProblem is the first of the accepted commit; nil if there is none.
func (s *Status) machineProblem() *MachineProblem {
	for i := range s.Machine {
		if s.Accepted != nil && s.Machine[i].Commit == s.Accepted.Commit {
			return &s.Machine[i]
		}
	}
	return nil
}
