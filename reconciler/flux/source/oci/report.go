package oci

import (
	"context"
	"fmt"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// problem is why there is no new artifact. condition is the one of Flux's that
// says so besides Ready.
type problem struct {
	condition, reason, message string
	// stalled problems last until somebody changes the object.
	stalled bool
}

func (p *problem) Error() string { return p.message }

func unverified(err error) *problem {
	return &problem{condition: sourcev1.SourceVerifiedCondition, reason: sourcev1.VerificationError, message: err.Error()}
}

// show puts an artifact into the status.
func (a *attempt) show(m *made) {
	a.obj.Status.Artifact = m.artifact.Status(a.key)
	a.obj.Status.URL = a.obj.Status.Artifact.URL
	a.obj.Status.ObservedIgnore, a.obj.Status.ObservedLayerSelector = a.obj.Spec.Ignore, a.obj.Spec.LayerSelector
	conditions.MarkTrue(a.obj, sourcev1.ArtifactInStorageCondition, meta.SucceededReason, "%s", stored(m.revision))
	if m.policy == "" {
		conditions.Delete(a.obj, sourcev1.SourceVerifiedCondition)
		return
	}
	conditions.MarkTrue(a.obj, sourcev1.SourceVerifiedCondition, meta.SucceededReason, "verified signature of revision %s by %s", m.revision, m.signer)
}

func stored(revision string) string { return fmt.Sprintf("stored artifact for digest '%s'", revision) }

// announce reports a new artifact.
func (a *attempt) announce(artifact *source.Artifact) {
	if a.before.Status.Artifact != nil && a.before.Status.Artifact.Revision == artifact.Revision {
		return // known to everybody from the last run
	}
	a.log.Info("OCIRepository has a new revision", "ocirepository", a.key.String(), "revision", artifact.Revision)
	if a.env.Events == nil {
		return
	}
	message := fmt.Sprintf("stored artifact with revision '%s' from '%s'", artifact.Revision, a.obj.Spec.URL)
	for _, origin := range []struct{ name, annotation string }{{"source", originSource}, {"revision", originRevision}} {
		if value := artifact.Metadata[origin.annotation]; value != "" {
			message += fmt.Sprintf(", origin %s '%s'", origin.name, value)
		}
	}
	a.env.Events.Event(a.obj, eventv1.EventSeverityInfo, "NewArtifact", message,
		map[string]string{eventv1.MetaRevisionKey: artifact.Revision, eventv1.MetaDigestKey: artifact.Digest})
}

// report writes the status and says when the next reconcile is.
func (a *attempt) report(ctx context.Context, p *problem, started time.Time) (ctrl.Result, error) {
	a.obj.Status.ObservedGeneration = a.obj.Generation
	if at, ok := meta.ReconcileAnnotationValue(a.obj.GetAnnotations()); ok {
		a.obj.Status.LastHandledReconcileAt = at
	}
	a.outcome(p)
	changed, err := status.Write(ctx, a.client, a.before, a.obj, owner)
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	a.job.status = *a.obj.Status.DeepCopy()
	if changed && a.env.Metrics != nil {
		a.env.Metrics.RecordDuration(corev1.ObjectReference{Kind: a.key.Kind, Namespace: a.key.Namespace, Name: a.key.Name}, started)
	}
	if p == nil {
		a.job.failures = 0
		return ctrl.Result{RequeueAfter: jitter.JitteredIntervalDuration(a.pause())}, nil
	}
	a.job.failures++
	if changed && a.env.Events != nil {
		a.env.Events.Event(a.obj, eventv1.EventSeverityError, p.reason, p.message, nil)
	}
	return ctrl.Result{RequeueAfter: a.pause()}, nil
}

// outcome sets the conditions. The artifact of before stays whatever the problem
// is.
func (a *attempt) outcome(p *problem) {
	o := a.obj
	conditions.Delete(o, meta.ReconcilingCondition)
	conditions.Delete(o, meta.StalledCondition)
	conditions.Delete(o, sourcev1.FetchFailedCondition)
	if p == nil {
		conditions.MarkTrue(o, meta.ReadyCondition, meta.SucceededReason, "%s", stored(o.Status.Artifact.Revision))
		return
	}
	conditions.MarkFalse(o, meta.ReadyCondition, p.reason, "%s", p.message)
	if p.condition == sourcev1.SourceVerifiedCondition {
		conditions.MarkFalse(o, p.condition, p.reason, "%s", p.message)
	} else {
		conditions.MarkTrue(o, p.condition, p.reason, "%s", p.message)
	}
	if p.stalled {
		conditions.MarkStalled(o, p.reason, "%s", p.message)
	}
}
