package release

import (
	"context"
	"fmt"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/action"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/kube"
	helm "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// install makes the first release. It begins a new history: nothing is rolled
// back to a time before it.
func (a *attempt) install(ctx context.Context) error {
	a.object.Status.LastAttemptedReleaseAction = v2.ReleaseActionInstall
	a.object.Status.ClearHistory()
	return a.makeRelease(ctx, releasing{
		action: v2.ReleaseActionInstall, failedReason: v2.InstallFailedReason, succeededReason: v2.InstallSucceededReason,
		failedFormat: installFailed, succeededFormat: installSucceeded,
		remediation: a.object.GetInstall().GetRemediation(), retry: a.object.GetInstall().GetRetry(false),
		crds: a.object.GetInstall().CRDs, run: a.runInstall,
	})
}

// releasing is what install and upgrade do differently.
type releasing struct {
	action                        v2.ReleaseAction
	failedReason, succeededReason string
	failedFormat, succeededFormat string
	remediation                   v2.Remediation
	retry                         v2.Retry
	crds                          v2.CRDsPolicy
	run                           func(context.Context, *action.Configuration, *chart.Chart, map[string]any) error
}

// makeRelease runs an action that makes a release, and records what it stored.
// A failure that stored something counts; one that did not is simply tried
// again.
func (a *attempt) makeRelease(ctx context.Context, r releasing) error {
	defer summarize(a.object)
	conditions.Delete(a.object, v2.TestSuccessCondition)
	conditions.Delete(a.object, v2.RemediatedCondition)

	a.actionLog.reset()
	began := time.Now()
	stored, err := a.runRelease(ctx, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.object.Status.LastAttemptedReleaseActionDuration = &metav1.Duration{Duration: time.Since(began).Round(time.Millisecond)}
	if err == nil {
		a.released(r)
		return nil
	}
	if a.interrupted() {
		// It was not given the time to succeed, so it did not fail.
		conditions.MarkFalse(a.object, v2.ReleasedCondition, r.failedReason, "%s", errInterrupted)
		return errInterrupted
	}
	a.releaseFailed(r, err)
	if stored == 0 {
		return err
	}
	r.remediation.IncrementFailureCount(a.object)
	return nil
}

// runRelease runs the action and returns how often it wrote to the storage.
func (a *attempt) runRelease(ctx context.Context, r releasing) (int, error) {
	c, err := a.loadChart()
	if err != nil {
		return 0, err
	}
	if err := a.applyCRDs(ctx, c, r.crds); err != nil {
		return 0, fmt.Errorf("failed to apply CustomResourceDefinitions: %w", err)
	}
	var newest *helm.Release
	record := history{&a.object.Status}
	config, stored, err := a.configuration(func(made *helm.Release) {
		record.record(made, r.action)
		newest = made
	})
	if err != nil {
		return 0, err
	}
	if config.Capabilities, err = a.cluster.capabilities.since(ctx, a.began); err != nil {
		return 0, err
	}
	err = r.run(ctx, config, c, copyValues(a.want.values))
	writes := stored.close()
	a.recordInventory(newest, c)
	return writes, err
}

// recordInventory lists in the status what the newest release made.
func (a *attempt) recordInventory(r *helm.Release, c *chart.Chart) {
	if r == nil {
		return
	}
	inventory, err := inventoryOf(r, c, a.cluster.mapper)
	if err != nil {
		a.log.Warn("cannot list what the release made", "error", err)
		return
	}
	a.object.Status.Inventory = inventory
}

// runInstall is Helm's install with the options of the object.
func (a *attempt) runInstall(ctx context.Context, config *action.Configuration, c *chart.Chart, values map[string]any) error {
	spec := a.object.GetInstall()
	install := action.NewInstall(config)
	install.ReleaseName = releaseName(a.object)
	install.Namespace = a.object.GetReleaseNamespace()
	install.CreateNamespace = spec.CreateNamespace && a.object.Spec.TargetNamespace != ""
	install.ServerSideApply = spec.ServerSideApply == nil || *spec.ServerSideApply
	install.ForceConflicts = install.ServerSideApply
	install.TakeOwnership = !spec.DisableTakeOwnership
	install.Replace = spec.Replace
	install.DisableHooks = spec.DisableHooks
	install.DisableOpenAPIValidation = spec.DisableOpenAPIValidation
	install.SkipSchemaValidation = spec.DisableSchemaValidation
	install.SkipCRDs = true // they are applied before, as the policy says
	install.Devel = true
	install.Timeout = a.timeout(stepInstall)
	install.WaitStrategy = a.waitStrategy(spec.DisableWait)
	install.WaitForJobs = !spec.DisableWaitForJobs
	install.PostRenderer = rendererOf(a.object)
	install.PostRenderStrategy = postRenderStrategy(a.object)
	_, err := install.RunWithContext(context.WithoutCancel(ctx), c, values)
	return err
}

// waitStrategy translates the strategies of Flux into Helm's.
func (a *attempt) waitStrategy(disabled bool) kube.WaitStrategy {
	switch {
	case disabled:
		return kube.HookOnlyStrategy
	case a.object.GetWaitStrategy() == v2.WaitStrategyLegacy:
		return kube.LegacyStrategy
	}
	return kube.StatusWatcherStrategy
}
