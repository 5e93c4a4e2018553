package reconciler

import (
	"fmt"
	"strings"
	"time"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/history"
)

// reportDrift says what others did to the site's objects, and that it is undone.
func (j *job) reportDrift(pass *apply.Pass) {
	for _, c := range pass.Changes {
		if c.Drift == nil {
			continue
		}
		j.metrics.drift.WithLabelValues(c.Drift.Action).Inc()
		j.report(Event{Reason: "Drift", Commit: j.snapshot.Commit, Message: driftText(c.Drift)}, nil)
	}
}

func driftText(d *apply.Drift) string {
	if d.Action == "deleted" {
		return fmt.Sprintf("%s was deleted in the cluster and is back after %s", d.ID, d.UndoneAfter.Round(time.Millisecond))
	}
	by := "somebody"
	if d.Manager != "" {
		by = d.Manager
	}
	fields := ""
	if len(d.Fields) > 0 {
		fields = " (" + strings.Join(d.Fields, ", ") + ")"
	}
	return fmt.Sprintf("%s was changed by %s%s and set back after %s", d.ID, by, fields, d.UndoneAfter.Round(time.Millisecond))
}

// reportPass says what a pass did. first is true until one went without
// failures.
func (j *job) reportPass(pass *apply.Pass, summary apply.Summary, first bool) {
	commit, now := j.snapshot.Commit, time.Now()
	if first {
		for _, c := range pass.Changes {
			j.changes.Add(string(c.Action), c.ID.String())
		}
	}
	if len(pass.Pruned)+len(pass.Kept) > 0 {
		j.report(Event{Reason: "Pruned", Commit: commit, Message: fmt.Sprintf("deleted %s that left Git%s", count(len(pass.Pruned)), list(pass.Pruned))}, func(s *Status) {
			s.LastPruned = &PrunedStatus{Commit: commit, At: now, Objects: pass.Pruned, Kept: pass.Kept}
		})
	}
	if len(pass.Failures) > 0 {
		j.report(Event{Reason: "ApplyFailed", Commit: commit, Warning: true, Message: fmt.Sprintf("%s failed, first %v", count(len(pass.Failures)), pass.Failures[0])}, func(s *Status) {
			s.Objects = objectsStatus(summary)
			s.degrade(reasonApply, pass.Failures[0].Error())
		})
		j.finish(j.snapshot, history.Degraded, pass.Failures[0].Error())
		return
	}
	change := func(s *Status) {
		s.Objects, s.Inventory = objectsStatus(summary), j.engine.Inventory()
		if s.Applied == nil || s.Applied.Commit != commit {
			s.Applied = &AppliedStatus{Commit: commit, At: now, Took: now.Sub(j.began)}
		}
		if pass.Guard != nil {
			s.degrade(reasonPrune, pass.Guard.Problem+"; "+pass.Guard.Remedy)
		}
	}
	switch {
	case pass.Guard != nil:
		j.report(Event{Reason: "PruneGuarded", Commit: commit, Warning: true, Message: pass.Guard.Problem + "; " + pass.Guard.Remedy}, change)
		j.finish(j.snapshot, history.Degraded, pass.Guard.Problem)
	case first:
		j.firstApplied(pass, summary, change)
	default:
		j.board.update(change)
	}
}

// firstApplied notes that all objects of the commit were sent.
func (j *job) firstApplied(pass *apply.Pass, summary apply.Summary, change func(*Status)) {
	commit, now := j.snapshot.Commit, time.Now()
	j.applied, j.retry = now, objectRetryMin
	j.snapshot.way.add(stepApply, j.began)
	if !j.snapshot.resumed {
		j.metrics.applied.Observe(now.Sub(j.snapshot.AcceptedAt).Seconds())
	}
	if !j.snapshot.resumed || j.outcomeOf(commit) == "" {
		changes := j.changes
		j.note(history.Entry{Commit: commit, AppliedAt: now.UTC(), Changes: &changes})
	}
	j.report(Event{Reason: "Applied", Commit: commit, Message: fmt.Sprintf("applied commit %.12s: %s, %d sent, in %s", commit, count(summary.Total), pass.Sent, now.Sub(j.began).Round(time.Millisecond))}, change)
}

// reportHealth says how healthy the objects are.
func (j *job) reportHealth(summary apply.Summary) {
	if summary.Done() {
		j.becameReady(summary)
		return
	}
	wasLate := j.late
	j.late = j.late || j.healthLeft() <= 10*time.Millisecond
	j.board.update(func(s *Status) {
		s.Objects = objectsStatus(summary)
		switch {
		case len(summary.Failed) > 0:
			s.degrade(reasonHealth, summary.Failed[0].Error())
		case j.late:
			s.degrade(reasonHealth, fmt.Sprintf("not healthy after %s: %v", j.healthTimeout(), summary.Pending[0]))
		default:
			s.Phase, s.Message = PhaseWaitReady, summary.Pending[0].Error()
		}
	})
	if j.late && !wasLate {
		j.report(Event{Reason: "HealthTimeout", Commit: j.snapshot.Commit, Warning: true, Message: j.Status().Message}, nil)
	}
	if st := j.Status(); st.Phase == PhaseDegraded {
		j.finish(j.snapshot, history.Degraded, st.Message)
	}
}

func (j *job) becameReady(summary apply.Summary) {
	after := time.Since(j.began)
	change := func(s *Status) {
		s.Objects = objectsStatus(summary)
		s.Phase, s.Reason, s.Message = PhaseReady, "", ""
		if s.Applied != nil && s.Applied.ReadyAfter == 0 {
			s.Applied.ReadyAfter = after
		}
	}
	if j.Status().Phase == PhaseReady {
		j.board.update(change)
		return
	}
	j.snapshot.way.add(stepHealth, j.applied)
	j.report(Event{Reason: "Ready", Commit: j.snapshot.Commit, Message: fmt.Sprintf("commit %.12s is healthy: %s", j.snapshot.Commit, count(summary.Total))}, change)
	j.finish(j.snapshot, history.Ready, "")
}

// degrade says why the site is not as Git wants it.
func (s *Status) degrade(r reason, message string) {
	s.Phase, s.Reason, s.Message = PhaseDegraded, r, message
}
