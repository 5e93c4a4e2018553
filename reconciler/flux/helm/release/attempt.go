package release

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	"helm.sh/helm/v4/pkg/action"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
)

// attempt is one job: the steps that bring a release to what is wanted.
type attempt struct {
	object  *v2.HelmRelease // changed as the attempt goes on
	want    wanted
	meta    *chart.Metadata // of the chart, with the version that counts
	cluster *cluster
	waiter  *waiter
	drift   driftFinder

	events events.Recorder
	log    *slog.Logger
	// save writes the status as it is now.
	save func(ctx context.Context) error
	// began is when the attempt did; what the cluster can do has to be known from
	// then or later.
	began time.Time

	actionLog *lastLines
	// storagePrint tells how the storage is now, as far as it is watched, and
	// examined how it was before it was last looked at.
	storagePrint func() string
	examined     string

	// Tests put their own storage and client here.
	driver    driver.Driver
	configure func(*action.Configuration)
}

// outcome is what an attempt came to.
type outcome struct {
	result  ctrl.Result
	inOrder bool // nothing is left to do
	// storage is how the storage was before it was found in order.
	storage string
}

// run takes steps until nothing is left to do or nothing more can be done now.
func (a *attempt) run(ctx context.Context) (outcome, error) {
	if reason, changed := targetChanged(a.object, a.meta.Name); changed {
		return a.moveAway(ctx, reason)
	}
	a.begin()
	taken := map[string]bool{}
	for {
		if err := ctx.Err(); err != nil {
			return outcome{}, err
		}
		next, err := a.next(ctx)
		if err != nil {
			return a.stuck(err)
		}
		if next.step == stepNone {
			return a.settled(next.state), nil
		}
		if taken[next.step.kind()] {
			return a.end(beforeRepeated(a.object))
		}
		if done, out, err := a.take(ctx, next); done {
			return out, err
		}
		taken[next.step.kind()] = true
	}
}

// begin notes in the status what is attempted.
func (a *attempt) begin() {
	s := &a.object.Status
	s.StorageNamespace = a.object.GetStorageNamespace()
	if reason, old := failuresAreOld(a.object, a.desired()); old {
		a.log.Debug("counts of failures start anew", "reason", reason)
		s.ClearFailures()
	}
	s.LastAttemptedGeneration = a.object.Generation
	s.LastAttemptedRevision = a.meta.Version
	s.LastAttemptedRevisionDigest = a.want.ociDigest
	s.LastAttemptedConfigDigest = digestOfValues(a.want.values)
	s.LastAttemptedValuesChecksum = "" //nolint:staticcheck // older versions of Flux wrote it
	s.LastReleaseRevision = 0          //nolint:staticcheck // as above
}

func (a *attempt) desired() desired { return desired{chart: a.meta, values: a.want.values} }

// planned is the next step and what it is for.
type planned struct {
	step  step
	state state
	drift *drift
}

// next looks at storage and cluster and decides.
func (a *attempt) next(ctx context.Context) (planned, error) {
	a.examined = a.storagePrint()
	stored, err := a.storage(nil)
	if err != nil {
		return planned{}, err
	}
	releases := storage.Init(stored)
	releases.SetLogger(a.actionLog)
	last, err := lastRelease(releases, releaseName(a.object))
	if err != nil {
		return planned{}, err
	}
	s, err := stateOf(a.object, last, a.desired())
	if err != nil {
		return planned{}, err
	}
	forced := meta.ShouldHandleForceRequest(a.object)
	step, err := decide(a.object, s, forced, func() (previous, error) { return a.previous(releases) })
	if err != nil {
		return planned{}, err
	}
	a.log.Debug("release examined", "state", string(s.condition), "reason", s.reason, "next", string(step))
	switch s.condition {
	case unmanaged:
		a.object.Status.ClearHistory()
	case inSync:
		truncate(a.object)
	case failed:
		if step == stepUpgrade && a.object.GetActiveRetry(false) != nil || step.kind() == "remediate" {
			truncate(a.object)
		}
	}
	if step != stepNone {
		return planned{step: step, state: s}, nil
	}
	return a.examineDrift(ctx, s, last)
}

// previous looks at the release that a rollback would go back to.
func (a *attempt) previous(releases *storage.Storage) (previous, error) {
	remediation := a.object.GetActiveRemediation()
	snapshot := a.object.Status.History.Previous(remediation.MustIgnoreTestFailures(a.object.GetTest().IgnoreFailures))
	if snapshot == nil {
		return previousMissing, nil
	}
	r, err := releaseAt(releases, snapshot.Name, snapshot.Version)
	if errors.Is(err, errNoRelease) {
		return previousChanged, nil
	}
	if err != nil {
		return previousMissing, err
	}
	same, err := observed(snapshot, r)
	if err != nil || !same {
		return previousChanged, err
	}
	return previousIntact, nil
}

// take runs a step. done says that the attempt ends with it.
func (a *attempt) take(ctx context.Context, next planned) (done bool, out outcome, err error) {
	message := fmt.Sprintf("Running '%s' action with timeout of %s", next.step, a.timeout(next.step))
	conditions.MarkReconciling(a.object, meta.ProgressingReason, "%s", message)
	if next.step.kind() == "release" {
		conditions.MarkUnknown(a.object, meta.ReadyCondition, meta.ProgressingReason, "%s", message)
	}
	if err := a.save(ctx); err != nil {
		return true, outcome{}, err
	}
	a.log.Info("run Helm action", "action", string(next.step), "reason", next.state.reason)
	err = a.perform(ctx, next)
	switch {
	case ctx.Err() != nil:
		return true, outcome{}, ctx.Err()
	case errors.Is(err, errInterrupted):
		return true, outcome{result: ctrl.Result{RequeueAfter: time.Millisecond}}, a.canceled()
	case err != nil && a.object.GetActiveRetry(false) != nil:
		a.log.Warn("Helm action failed", "action", string(next.step), "error", err)
		out, err = a.end(retryLater)
		return true, out, err
	case err != nil:
		if conditions.IsReady(a.object) {
			conditions.MarkFalse(a.object, meta.ReadyCondition, "ReconcileError", "%s", err)
		}
		return true, outcome{}, err
	case next.step.kind() == "remediate":
		out, err = a.end(afterRemediation(a.object))
		return true, out, err
	}
	return false, outcome{}, a.save(ctx)
}

// perform dispatches to the step.
func (a *attempt) perform(ctx context.Context, next planned) error {
	switch next.step {
	case stepUnlock:
		return a.unlock()
	case stepInstall:
		return a.install(ctx)
	case stepUpgrade:
		return a.upgrade(ctx)
	case stepTest:
		return a.test()
	case stepRollback:
		return a.rollback()
	case stepUninstall:
		return a.remediateByUninstall()
	case stepCorrect:
		return a.correct(ctx, next.drift)
	}
	return fmt.Errorf("unknown step %q", next.step)
}

// interrupted tells whether something newer is wanted.
func (a *attempt) interrupted() bool {
	return a.waiter != nil && a.waiter.interrupted.Err() != nil
}

// canceled says in the status that a wait was given up for something newer.
func (a *attempt) canceled() error {
	conditions.MarkFalse(a.object, meta.ReadyCondition, meta.HealthCheckCanceledReason,
		"New reconciliation triggered while waiting for health checks")
	a.events.Event(a.object, eventv1.EventSeverityInfo, meta.HealthCheckCanceledReason,
		"Health checks canceled due to new reconciliation", nil)
	return nil
}

// timeout of a step.
func (a *attempt) timeout(s step) time.Duration {
	general := a.object.GetTimeout()
	return map[step]metav1.Duration{
		stepInstall:   a.object.GetInstall().GetTimeout(general),
		stepUpgrade:   a.object.GetUpgrade().GetTimeout(general),
		stepTest:      a.object.GetTest().GetTimeout(general),
		stepRollback:  a.object.GetRollback().GetTimeout(general),
		stepUninstall: a.object.GetUninstall().GetTimeout(general),
		stepUnlock:    general,
		stepCorrect:   general,
	}[s].Duration
}

// end says how it goes on after the attempt.
func (a *attempt) end(v verdict) (outcome, error) {
	switch v {
	case retryLater:
		interval := a.object.GetActiveRetry(false).GetRetryInterval()
		conditions.MarkReconciling(a.object, meta.ProgressingWithRetryReason, "retrying after %s", interval)
		return outcome{result: jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: interval})}, nil
	case giveUp:
		return a.stuck(errRetriesExceeded)
	}
	conditions.MarkReconciling(a.object, meta.ProgressingWithRetryReason, "%s",
		conditions.GetMessage(a.object, meta.ReadyCondition))
	return outcome{}, errAgain
}

// errAgain has the attempt repeated, a little later each time.
var errAgain = errors.New("the release is not in order yet and is attempted again")

// stuck ends an attempt by an error. Some of them do not go away by themselves.
func (a *attempt) stuck(err error) (outcome, error) {
	switch {
	case errors.Is(err, errRetriesExceeded):
		count := int64(0)
		if r := a.object.GetActiveRemediation(); r != nil {
			count = r.GetFailureCount(a.object)
		}
		conditions.Delete(a.object, meta.ReconcilingCondition)
		conditions.MarkStalled(a.object, "RetriesExceeded", "Failed to %s after %d attempt(s)",
			a.object.Status.LastAttemptedReleaseAction, count)
		return outcome{}, nil
	case errors.Is(err, errNoRollbackTarget):
		conditions.Delete(a.object, meta.ReconcilingCondition)
		conditions.MarkStalled(a.object, "MissingRollbackTarget", "Failed to perform remediation: %s", err)
		return outcome{}, nil
	}
	conditions.MarkFalse(a.object, meta.ReadyCondition, "StateError", "Could not determine release state: %s", err)
	return outcome{}, err
}

// settled says that nothing is left to do.
func (a *attempt) settled(s state) outcome {
	conditions.Delete(a.object, meta.ReconcilingCondition)
	a.confirm()
	summarize(a.object)
	return outcome{
		result:  jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: a.object.GetRequeueAfter()}),
		inOrder: s.condition == inSync, storage: a.examined,
	}
}

// confirm corrects conditions that speak of a failure which is over, although no
// step was needed for that.
func (a *attempt) confirm() {
	current := a.object.Status.History.Latest()
	if current == nil {
		return
	}
	released := conditions.GetReason(a.object, v2.ReleasedCondition)
	switch {
	case conditions.IsTrue(a.object, v2.RemediatedCondition):
		conditions.Delete(a.object, v2.RemediatedCondition)
		conditions.MarkTrue(a.object, v2.ReleasedCondition, v2.UpgradeSucceededReason, upgradeSucceeded, current.FullReleaseName(), current.VersionedChartName())
	case conditions.IsTrue(a.object, v2.ReleasedCondition):
	case released == v2.InstallFailedReason:
		conditions.MarkTrue(a.object, v2.ReleasedCondition, v2.InstallSucceededReason, installSucceeded, current.FullReleaseName(), current.VersionedChartName())
	case released == v2.UpgradeFailedReason:
		conditions.MarkTrue(a.object, v2.ReleasedCondition, v2.UpgradeSucceededReason, upgradeSucceeded, current.FullReleaseName(), current.VersionedChartName())
	}
}

// moveAway uninstalls the release that the object made before it was told to
// make another one.
func (a *attempt) moveAway(ctx context.Context, reason string) (outcome, error) {
	a.log.Info("the target of the release changed; uninstall the release that was there", "changed", reason)
	if err := a.uninstall(ctx); err != nil && !errors.Is(err, errNoCurrent) {
		return outcome{}, err
	}
	a.object.Status.ClearHistory()
	a.object.Status.ClearFailures()
	a.object.Status.StorageNamespace = ""
	return outcome{result: ctrl.Result{RequeueAfter: time.Millisecond}}, nil
}

// loadChart parses the chart anew: Helm changes the charts that it renders.
func (a *attempt) loadChart() (*chart.Chart, error) {
	files, err := charts.FromArtifact(a.want.artifact.Files)
	if err != nil {
		return nil, err
	}
	c, err := files.Chart()
	if err != nil {
		return nil, err
	}
	c.Metadata.Version = a.meta.Version
	return c, nil
}
