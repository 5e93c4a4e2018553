package reconciler

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/bothy-os/bothy/reconciler/history"
)

// way is what a commit went through on this machine, from the fetch that found
// it to healthy objects. Its steps are traced when it has ended, so that no
// span is open while the machine waits, and one that dies leaves no half trace.
type way struct {
	mu    sync.Mutex
	steps []step
	ended bool
}

type step struct {
	name       string
	begin, end time.Time
}

// The steps, in their order.
const (
	stepFetch    = "fetch"
	stepVerify   = "verify"
	stepValidate = "validate"
	stepBuild    = "build"
	stepApply    = "apply"
	stepHealth   = "health"
)

// add notes a step that began at the given time and ends now. A step is noted
// once; repetitions belong to the life after the commit.
func (w *way) add(name string, begin time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.steps {
		if s.name == name {
			return
		}
	}
	w.steps = append(w.steps, step{name, begin, time.Now()})
}

// end returns the steps at the first call, and nothing later.
func (w *way) end() []step {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil
	}
	w.ended = true
	return w.steps
}

// tracerName is the instrumentation scope of the spans.
const tracerName = "github.com/bothy-os/bothy/reconciler"

// finish notes the end of a commit's way: in the history, in the metrics, and
// as a trace. Later outcomes of the same commit go to the history alone.
func (r *Reconciler) finish(s *Snapshot, outcome history.Outcome, message string) {
	now := time.Now().UTC()
	steps := s.way.end()
	if s.resumed && r.outcomeOf(s.Commit) == outcome {
		return // it had arrived before this process began
	}
	e := history.Entry{Commit: s.Commit, Outcome: outcome, Message: message, EndedAt: now}
	for _, st := range steps {
		e.Steps = append(e.Steps, history.Step{Name: st.name, Took: st.end.Sub(st.begin)})
	}
	r.note(e)
	if len(steps) == 0 || s.resumed {
		return
	}
	if outcome == history.Ready {
		r.metrics.ready.Observe(now.Sub(s.AcceptedAt).Seconds())
	}
	r.trace(s, steps, outcome, message)
}

// outcomeOf is how the way of a commit ended, as far as the history knows.
func (r *Reconciler) outcomeOf(commit string) history.Outcome {
	for _, e := range r.history.Entries(1) {
		if e.Commit == commit {
			return e.Outcome
		}
	}
	return ""
}

// trace sends the way of a commit to the collector, if there is one.
func (r *Reconciler) trace(s *Snapshot, steps []step, outcome history.Outcome, message string) {
	tracer := r.cfg.Tracing.Tracer(tracerName)
	attributes := []attribute.KeyValue{
		attribute.String("vcs.ref.head.name", r.cfg.Boot.Repository.Branch),
		attribute.String("vcs.ref.head.revision", s.Commit),
		attribute.String("vcs.repository.url.full", r.Status().Source.URL),
		attribute.String("bothy.outcome", string(outcome)),
	}
	if s.Signer != nil {
		attributes = append(attributes, attribute.String("bothy.signer", s.Signer.Signer))
	}
	ctx, root := tracer.Start(context.Background(), "commit", trace.WithNewRoot(), trace.WithTimestamp(steps[0].begin), trace.WithAttributes(attributes...))
	for _, st := range steps {
		_, span := tracer.Start(ctx, st.name, trace.WithTimestamp(st.begin))
		span.End(trace.WithTimestamp(st.end))
	}
	if outcome == history.Degraded {
		root.SetStatus(codes.Error, message)
	}
	root.End(trace.WithTimestamp(steps[len(steps)-1].end))
}

// note adds to the history. A history that cannot be written is no reason to
// hold up a commit.
func (r *Reconciler) note(e history.Entry) {
	if err := r.history.Progress(e); err != nil {
		r.log.Warn("history of commits", "error", err)
	}
}

// begun opens the history entry of a snapshot that was accepted just now, or in
// an earlier life of which the history knows nothing.
func (r *Reconciler) begun(s *Snapshot) {
	last := r.history.Entries(1)
	e := history.Entry{
		Commit: s.Commit, Subject: s.Subject, Author: s.Author, Source: s.source,
		CommittedAt: s.Time.UTC(), AcceptedAt: s.AcceptedAt.UTC(),
	}
	if len(last) > 0 {
		if last[0].Commit == s.Commit {
			return
		}
		e.From = last[0].Commit
		if last[0].Outcome == "" {
			r.note(history.Entry{Commit: last[0].Commit, Outcome: history.Superseded, EndedAt: e.AcceptedAt})
		}
	}
	if s.Signer != nil {
		e.Signer, e.Kind, e.Fingerprint = s.Signer.Signer, s.Signer.Kind, s.Signer.Fingerprint
	}
	if err := r.history.Accepted(e); err != nil {
		r.log.Warn("history of commits", "error", err)
	}
}

// History returns the newest n commits that the site accepted, newest first;
// n <= 0 means all that are known.
func (r *Reconciler) History(n int) []history.Entry { return r.history.Entries(n) }
