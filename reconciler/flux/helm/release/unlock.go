package release

import (
	"fmt"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/release/common"
	helm "helm.sh/helm/v4/pkg/release/v1"
)

// reasonPending is the reason of conditions and events about releases that were
// found pending.
const reasonPending = "PendingRelease"

// unlock marks a release as failed that is pending although nobody works on it:
// only one job works on a release, and this is it. What remains is what a
// process left that was killed.
func (a *attempt) unlock() error {
	defer summarize(a.object)
	record := history{&a.object.Status}
	config, stored, err := a.configuration(func(r *helm.Release) {
		if a.madeHere(r) {
			record.record(r, a.object.Status.LastAttemptedReleaseAction)
			return
		}
		record.update(r, "")
	})
	if err != nil {
		return err
	}
	defer stored.close()
	last, err := lastRelease(config.Releases, releaseName(a.object))
	if err != nil || last == nil || !last.Info.Status.IsPending() {
		return err
	}
	was := last.Info.Status
	current := snapshotOf(last, "", "")
	last.SetStatus(common.StatusFailed, fmt.Sprintf("Release unlocked from stale '%s' state", was))
	if err := config.Releases.Update(last); err != nil {
		message := fmt.Sprintf(unlockFailed, current.FullReleaseName(), current.VersionedChartName(), was, oneLine(err))
		a.object.Status.Failures++
		conditions.MarkFalse(a.object, v2.ReleasedCondition, reasonPending, "%s", message)
		a.tell(eventv1.EventSeverityError, reasonPending, message, current)
		return err
	}
	message := fmt.Sprintf(unlockSucceeded, current.FullReleaseName(), current.VersionedChartName(), was)
	conditions.MarkFalse(a.object, v2.ReleasedCondition, reasonPending, "%s", message)
	a.tell(eventv1.EventSeverityInfo, reasonPending, message, current)
	return nil
}

// madeHere tells whether a release is a later one of those in the history. It is
// then taken into it, so that there still is something to roll back to.
func (a *attempt) madeHere(r *helm.Release) bool {
	latest := a.object.Status.History.Latest()
	if latest == nil || latest.Name != r.Name || latest.Namespace != r.Namespace {
		return false
	}
	objects, err := objectsOf(r, a.cluster.mapper)
	if err != nil || len(objects) == 0 {
		return false
	}
	labels := objects[0].GetLabels()
	return labels[labelName] == a.object.Name && labels[labelNamespace] == a.object.Namespace
}
