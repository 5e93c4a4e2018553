package release

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/release/common"
	helm "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// errNoCurrent says that there is no release of ours to do something with.
var errNoCurrent = errors.New("no latest release")

// uninstall removes the release for good.
func (a *attempt) uninstall(ctx context.Context) error {
	defer summarize(a.object)
	current := a.object.Status.History.Latest()
	if current == nil {
		return fmt.Errorf("%w: required to uninstall", errNoCurrent)
	}
	before := *current
	stored, err := a.runUninstall(&before, v2.ReleaseActionUninstall)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, driver.ErrReleaseNotFound):
		conditions.MarkFalse(a.object, v2.ReleasedCondition, v2.UninstallSucceededReason,
			"Release %s was not found, assuming it is uninstalled", before.FullReleaseName())
		return nil
	case alreadyUninstalled(err) && a.object.GetUninstall().KeepHistory:
		conditions.MarkFalse(a.object, v2.ReleasedCondition, v2.UninstallSucceededReason,
			"Release %s was already uninstalled", before.FullReleaseName())
		return nil
	case err == nil && stored == 0:
		err = errStorageUnchanged
	}
	if err != nil {
		message := fmt.Sprintf(uninstallFailed, before.FullReleaseName(), before.VersionedChartName(), oneLine(err))
		a.object.Status.Failures++
		conditions.MarkFalse(a.object, v2.ReleasedCondition, v2.UninstallFailedReason, "%s", message)
		a.tell(eventv1.EventSeverityError, v2.UninstallFailedReason, a.withLog(message), &before)
		return err
	}
	message := fmt.Sprintf(uninstallSucceeded, before.FullReleaseName(), before.VersionedChartName())
	a.object.Status.Inventory = nil
	conditions.MarkFalse(a.object, v2.ReleasedCondition, v2.UninstallSucceededReason, "%s", message)
	a.tell(eventv1.EventSeverityInfo, v2.UninstallSucceededReason, message, &before)
	return nil
}

// errStorageUnchanged says that Helm removed the objects, but not its record.
var errStorageUnchanged = errors.New("uninstall completed, but the release is still in the storage as it was")

func alreadyUninstalled(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is already deleted")
}

// remediateByUninstall removes a release that failed, so that it can be
// installed anew, or one whose removal was cut off.
func (a *attempt) remediateByUninstall() error {
	current, err := a.current()
	if err != nil {
		return err
	}
	before := *current
	stored, err := a.runUninstall(&before, v2.ReleaseActionUninstallRemediation)
	if err == nil && stored == 0 {
		err = errStorageUnchanged
	}
	if err == nil {
		message := fmt.Sprintf(remediationSucceeded, before.FullReleaseName(), before.VersionedChartName())
		conditions.MarkTrue(a.object, v2.RemediatedCondition, v2.UninstallSucceededReason, "%s", message)
		a.tell(eventv1.EventSeverityInfo, v2.UninstallSucceededReason, message, &before)
		summarize(a.object)
		return nil
	}
	message := fmt.Sprintf(remediationFailed, before.FullReleaseName(), before.VersionedChartName(), oneLine(err))
	a.object.Status.Failures++
	conditions.MarkFalse(a.object, v2.RemediatedCondition, v2.UninstallFailedReason, "%s", message)
	a.tell(eventv1.EventSeverityError, v2.UninstallFailedReason, a.withLog(message), &before)
	summarize(a.object)
	if stored == 0 {
		return err
	}
	return nil
}

// current returns the snapshot of the newest release. An uninstall that was cut
// off may have happened before its snapshot was written.
func (a *attempt) current() (*v2.Snapshot, error) {
	if latest := a.object.Status.History.Latest(); latest != nil {
		return latest, nil
	}
	config, _, err := a.configuration(nil)
	if err != nil {
		return nil, err
	}
	last, err := lastRelease(config.Releases, releaseName(a.object))
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, fmt.Errorf("%w: required to uninstall", errNoCurrent)
	}
	return snapshotOf(last, "", ""), nil
}

// runUninstall is Helm's uninstall with the options of the object. It returns
// how often it wrote to the storage.
func (a *attempt) runUninstall(current *v2.Snapshot, as v2.ReleaseAction) (int, error) {
	a.actionLog.reset()
	record := history{&a.object.Status}
	config, stored, err := a.configuration(func(r *helm.Release) { record.update(r, as) })
	if err != nil {
		return 0, err
	}
	spec := a.object.GetUninstall()
	uninstall := action.NewUninstall(config)
	uninstall.Timeout = a.timeout(stepUninstall)
	uninstall.DisableHooks = spec.DisableHooks
	uninstall.KeepHistory = spec.KeepHistory
	uninstall.WaitStrategy = a.waitStrategy(spec.DisableWait)
	uninstall.DeletionPropagation = spec.GetDeletionPropagation()
	response, err := uninstall.Run(current.Name)
	writes := stored.close()
	if response == nil || err != nil {
		return writes, err
	}
	removed, err := typed(response.Release)
	if err != nil {
		return writes, err
	}
	foreign := !removed.Info.Deleted.IsZero() && removed.Version != current.Version &&
		removed.Info.Status != common.StatusUninstalled
	if foreign {
		return writes, fmt.Errorf("uninstalled release %s.v%d is not %s: somebody else made it",
			removed.Name, removed.Version, current.FullReleaseName())
	}
	return writes, nil
}
