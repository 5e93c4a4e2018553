package kustomization

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/acl"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

// problem is why an object is not in order.
type problem struct {
	reason, message string
	// stalled problems last until somebody changes the object.
	stalled bool
	// waiting problems end by themselves; they are no failures.
	waiting bool
}

func (p *problem) Error() string { return p.message }

func accessDenied(message string) *problem {
	return &problem{reason: acl.AccessDeniedReason, message: message, stalled: true}
}

func invalidExpression(err error) *problem {
	return &problem{reason: meta.InvalidCELExpressionReason, message: "Reconciliation failed terminally due to configuration error: " + err.Error(), stalled: true}
}

func notReady(message string) *problem {
	return &problem{reason: meta.DependencyNotReadyReason, message: message, waiting: true}
}

// verdict is how a reconcile ended. Exactly one of its fields is set, or none
// if all is in order.
type verdict struct {
	// problem is what is wrong.
	problem *problem
	// progress is what is under way; somebody calls again.
	progress string
	// err says that the attempt says nothing about the object.
	err error
	// nothing leaves the status as it is.
	nothing bool

	// after is when to look again; zero for the interval of the case.
	after time.Duration
}

func failed(reason string, err error) verdict {
	return verdict{problem: &problem{reason: reason, message: err.Error()}}
}

// finish writes what came of a reconcile and says when the next one is.
func (a *attempt) finish(ctx context.Context, v verdict) (ctrl.Result, error) {
	if v.err != nil {
		if ctx.Err() == nil && !errors.Is(v.err, apply.ErrUnavailable) {
			a.log.Warn("reconcile", "kustomization", a.name().String(), "error", v.err)
		}
		return ctrl.Result{RequeueAfter: a.job.nextRetry(), Priority: new(priorityIdle)}, nil
	}
	a.job.retries = 0
	result := later(v.after)
	switch {
	case v.nothing:
		if v.after == 0 {
			result = later(interval(a.obj))
		}
		return result, nil
	case v.problem != nil:
		a.fail(v.problem)
		if v.after == 0 {
			result = later(a.obj.GetRetryInterval())
		}
	case v.progress != "":
		a.progress(v.progress)
	default:
		a.succeed()
		if v.after == 0 {
			result = later(interval(a.obj))
		}
	}
	if v.progress == "" {
		if at, ok := meta.ReconcileAnnotationValue(a.obj.GetAnnotations()); ok {
			a.obj.Status.LastHandledReconcileAt = at
		}
	}
	if err := a.write(ctx); err != nil {
		return ctrl.Result{}, conflictIsLater(err)
	}
	if v.progress == "" {
		a.job.settle(v.problem == nil && a.applied)
	}
	a.announce(v)
	return result, nil
}

// write sends the status if it differs from the one last written.
func (a *attempt) write(ctx context.Context) error {
	if _, err := status.Write(ctx, a.client, a.before, a.obj, owner); err != nil {
		return err
	}
	a.before.Status = *a.obj.Status.DeepCopy()
	a.job.setStatus(*a.obj.Status.DeepCopy())
	return nil
}

func (a *attempt) progress(message string) {
	conditions.MarkUnknown(a.obj, meta.ReadyCondition, meta.ProgressingReason, "%s", "Reconciliation in progress")
	conditions.MarkReconciling(a.obj, meta.ProgressingReason, "%s", message)
	conditions.Delete(a.obj, meta.StalledCondition)
}

func (a *attempt) fail(p *problem) {
	conditions.MarkFalse(a.obj, meta.ReadyCondition, p.reason, "%s", p.message)
	switch {
	case p.stalled:
		conditions.Delete(a.obj, meta.ReconcilingCondition)
		conditions.MarkStalled(a.obj, p.reason, "%s", p.message)
		a.obj.Status.ObservedGeneration = a.obj.Generation
	case conditions.Has(a.obj, meta.ReconcilingCondition):
		c := conditions.Get(a.obj, meta.ReconcilingCondition)
		c.Reason = meta.ProgressingWithRetryReason
		conditions.Set(a.obj, c)
	}
	if a.revision != "" && a.worked {
		a.obj.Status.LastAttemptedRevision = a.revision
		a.remember(p.reason)
	}
	a.storeInventory()
}

func (a *attempt) succeed() {
	s := &a.obj.Status
	conditions.MarkTrue(a.obj, meta.ReadyCondition, meta.ReconciliationSucceededReason, "Applied revision: %s", a.revision)
	conditions.Delete(a.obj, meta.ReconcilingCondition)
	conditions.Delete(a.obj, meta.StalledCondition)
	if a.worked || s.LastAppliedRevision != a.revision || !conditions.IsReady(a.before) {
		a.remember(meta.ReconciliationSucceededReason)
	}
	s.LastAttemptedRevision, s.LastAppliedRevision, s.LastAppliedOriginRevision = a.revision, a.revision, a.originRevision
	s.ObservedGeneration = a.obj.Generation
	a.storeInventory()
}

// remember adds the attempt to the history.
func (a *attempt) remember(reason string) {
	if a.job.result == "" {
		return
	}
	metadata := map[string]string{"revision": a.revision}
	if a.originRevision != "" {
		metadata["originRevision"] = a.originRevision
	}
	a.obj.Status.History.Upsert(a.job.result, a.now(), a.now().Sub(a.began()), reason, metadata)
}

// began is when the work started of which this reconcile may be the end.
func (a *attempt) began() time.Time {
	if !a.job.began.IsZero() {
		return a.job.began
	}
	return a.started
}

// announce reports the end of a reconcile that changed something.
func (a *attempt) announce(v verdict) {
	if v.progress != "" {
		return
	}
	ready, was := conditions.Get(a.obj, meta.ReadyCondition), a.wasReady
	moved := was == nil || was.Status != ready.Status || was.Reason != ready.Reason || was.Message != ready.Message
	switch {
	case v.problem != nil && moved:
		severity := eventv1.EventSeverityError
		if v.problem.waiting {
			severity = eventv1.EventSeverityInfo
		}
		a.event(severity, v.problem.message, nil)
		a.log.Info("Kustomization is not ready", "kustomization", a.name().String(), "reason", v.problem.reason, "message", v.problem.message)
	case v.problem == nil && (a.worked || moved && !a.followed):
		took := a.now().Sub(a.began())
		a.event(eventv1.EventSeverityInfo, fmt.Sprintf("Reconciliation finished in %s, next run in %s", took.Round(time.Millisecond), a.obj.Spec.Interval.Duration), map[string]string{
			eventv1.MetaCommitStatusKey: eventv1.MetaCommitStatusUpdateValue,
		})
		a.log.Debug("Kustomization is ready", "kustomization", a.name().String(), "revision", a.revision, "took", took)
	}
	if !a.job.began.IsZero() && a.env.Metrics != nil {
		a.env.Metrics.RecordDuration(reference(a.name()), a.began())
	}
	a.job.began = time.Time{}
}

// note reports something that is not about the condition Ready.
func (a *attempt) note(severity, reason, message string) {
	if a.env.Events != nil {
		a.env.Events.Event(a.obj, severity, reason, message, map[string]string{eventv1.MetaRevisionKey: a.revision})
	}
}

// event reports about the object, with its revision.
func (a *attempt) event(severity, message string, metadata map[string]string) {
	if a.env.Events == nil {
		return
	}
	if metadata == nil {
		metadata = map[string]string{}
	}
	if a.revision != "" {
		metadata[eventv1.MetaRevisionKey] = a.revision
	}
	if a.originRevision != "" {
		metadata[eventv1.MetaOriginRevisionKey] = a.originRevision
	}
	reason := severity
	if r := conditions.GetReason(a.obj, meta.ReadyCondition); r != "" {
		reason = r
	}
	a.env.Events.Event(a.obj, severity, reason, message, metadata)
}

// changeLog lists what a pass did, one object a line, as Flux does.
func changeLog(pass *apply.Pass) string {
	var b strings.Builder
	for _, c := range pass.Changes {
		if c.Action == apply.Unchanged || c.Action == apply.Skipped || c.Drift != nil {
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", subject(c.ID), c.Action)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// subject names an object as Flux does.
func subject(id apply.ID) string {
	name := id.Kind + "/"
	if id.Namespace != "" {
		name += id.Namespace + "/"
	}
	return name + id.Name
}

// nextRetry is the pause after an attempt that said nothing.
func (j *job) nextRetry() time.Duration {
	j.retries++
	return min(retryMin<<min(j.retries-1, 10), retryMax)
}
