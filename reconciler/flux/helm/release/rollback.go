package release

import (
	"fmt"
	"strconv"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/action"
	helm "helm.sh/helm/v4/pkg/release/v1"
)

// rollback goes back to the last release that was in order.
func (a *attempt) rollback() error {
	defer summarize(a.object)
	ignoreTests := a.object.GetUpgrade().GetRemediation().MustIgnoreTestFailures(a.object.GetTest().IgnoreFailures)
	back := a.object.Status.History.Previous(ignoreTests)
	if back == nil {
		return fmt.Errorf("%w: required to rollback", errNoRollbackTarget)
	}
	a.actionLog.reset()
	stored, err := a.runRollback(back)
	if err == nil {
		message := fmt.Sprintf(rollbackSucceeded, back.FullReleaseName(), back.VersionedChartName())
		conditions.MarkTrue(a.object, v2.RemediatedCondition, v2.RollbackSucceededReason, "%s", message)
		a.tell(eventv1.EventSeverityInfo, v2.RollbackSucceededReason, message, back)
		return nil
	}
	message := fmt.Sprintf(rollbackFailed, back.FullReleaseName(), back.VersionedChartName(), oneLine(err))
	a.object.Status.Failures++
	conditions.MarkFalse(a.object, v2.RemediatedCondition, v2.RollbackFailedReason, "%s", message)
	a.tell(eventv1.EventSeverityError, v2.RollbackFailedReason, a.withLog(message), back)
	if stored == 0 {
		return err
	}
	return nil
}

// runRollback is Helm's rollback with the options of the object. It returns how
// often it wrote to the storage.
func (a *attempt) runRollback(back *v2.Snapshot) (int, error) {
	var newest *helm.Release
	record := history{&a.object.Status}
	config, stored, err := a.configuration(func(r *helm.Release) {
		record.record(r, v2.ReleaseActionRollback)
		newest = r
	})
	if err != nil {
		return 0, err
	}
	target, err := releaseAt(config.Releases, back.Name, back.Version)
	if err != nil {
		return 0, err
	}
	spec := a.object.GetRollback()
	serverSide := appliesServerSide(spec.ServerSideApply, target)
	rollback := action.NewRollback(config)
	rollback.Version = back.Version
	rollback.ServerSideApply = strconv.FormatBool(serverSide)
	rollback.ForceConflicts = serverSide
	rollback.ForceReplace = spec.Force && !serverSide
	rollback.CleanupOnFail = spec.CleanupOnFail
	rollback.DisableHooks = spec.DisableHooks
	rollback.MaxHistory = a.object.GetMaxHistory()
	rollback.Timeout = a.timeout(stepRollback)
	rollback.WaitStrategy = a.waitStrategy(spec.DisableWait)
	rollback.WaitForJobs = !spec.DisableWaitForJobs
	err = rollback.Run(back.Name)
	writes := stored.close()
	if newest != nil {
		a.recordInventory(newest, newest.Chart)
	}
	return writes, err
}
