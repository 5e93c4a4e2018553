package release

import (
	"context"
	"strconv"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/action"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	helm "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// upgrade makes the next release.
func (a *attempt) upgrade(ctx context.Context) error {
	a.object.Status.LastAttemptedReleaseAction = v2.ReleaseActionUpgrade
	policy := a.object.GetUpgrade().CRDs
	if policy == "" {
		policy = v2.Skip
	}
	return a.makeRelease(ctx, releasing{
		action: v2.ReleaseActionUpgrade, failedReason: v2.UpgradeFailedReason, succeededReason: v2.UpgradeSucceededReason,
		failedFormat: upgradeFailed, succeededFormat: upgradeSucceeded,
		remediation: a.object.GetUpgrade().GetRemediation(), retry: a.object.GetUpgrade().GetRetry(false),
		crds: policy, run: a.runUpgrade,
	})
}

// runUpgrade is Helm's upgrade with the options of the object.
func (a *attempt) runUpgrade(ctx context.Context, config *action.Configuration, c *chart.Chart, values map[string]any) error {
	last, err := lastRelease(config.Releases, releaseName(a.object))
	if err != nil {
		return err
	}
	if last == nil {
		return driver.NewErrNoDeployedReleases(releaseName(a.object))
	}
	spec := a.object.GetUpgrade()
	serverSide := appliesServerSide(spec.ServerSideApply, last)
	upgrade := action.NewUpgrade(config)
	upgrade.Namespace = a.object.GetReleaseNamespace()
	upgrade.ServerSideApply = strconv.FormatBool(serverSide)
	upgrade.ForceConflicts = serverSide
	upgrade.ForceReplace = spec.Force && !serverSide
	upgrade.ResetValues = !spec.PreserveValues
	upgrade.ReuseValues = spec.PreserveValues
	upgrade.MaxHistory = a.object.GetMaxHistory()
	upgrade.TakeOwnership = !spec.DisableTakeOwnership
	upgrade.CleanupOnFail = spec.CleanupOnFail
	upgrade.DisableHooks = spec.DisableHooks
	upgrade.DisableOpenAPIValidation = spec.DisableOpenAPIValidation
	upgrade.SkipSchemaValidation = spec.DisableSchemaValidation
	upgrade.SkipCRDs = true // they are applied before, as the policy says
	upgrade.Devel = true
	upgrade.Timeout = a.timeout(stepUpgrade)
	upgrade.WaitStrategy = a.waitStrategy(spec.DisableWait)
	upgrade.WaitForJobs = !spec.DisableWaitForJobs
	upgrade.PostRenderer = rendererOf(a.object)
	upgrade.PostRenderStrategy = postRenderStrategy(a.object)
	_, err = upgrade.RunWithContext(context.WithoutCancel(ctx), last.Name, c, values)
	return err
}

// appliesServerSide resolves the mode: "auto" goes on as an earlier release
// began.
func appliesServerSide(mode v2.ServerSideApplyMode, earlier *helm.Release) bool {
	switch mode {
	case v2.ServerSideApplyEnabled:
		return true
	case v2.ServerSideApplyDisabled:
		return false
	}
	return earlier.ApplyMethod == string(helm.ApplyMethodServerSideApply)
}
