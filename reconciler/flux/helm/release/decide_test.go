package release

import (
	"errors"
	"testing"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helm "helm.sh/helm/v4/pkg/release/v1"
)

// made returns a HelmRelease that was released before by an action.
func made(by v2.ReleaseAction, change ...func(*v2.HelmRelease)) *v2.HelmRelease {
	o := new(v2.HelmRelease)
	o.Name, o.Namespace, o.Generation = "web", "default", 1
	o.Status.LastAttemptedReleaseAction = by
	for _, f := range change {
		f(o)
	}
	return o
}

func installFailures(n int64, retries int) func(*v2.HelmRelease) {
	return func(o *v2.HelmRelease) {
		o.Status.InstallFailures = n
		o.Spec.Install = &v2.Install{Remediation: &v2.InstallRemediation{Retries: retries}}
	}
}

func upgradeFailures(n int64, retries int, change ...func(*v2.UpgradeRemediation)) func(*v2.HelmRelease) {
	return func(o *v2.HelmRelease) {
		r := &v2.UpgradeRemediation{Retries: retries}
		for _, f := range change {
			f(r)
		}
		o.Status.UpgradeFailures = n
		o.Spec.Upgrade = &v2.Upgrade{Remediation: r}
	}
}

func retryOnFailure(o *v2.HelmRelease) {
	o.Spec.Upgrade = &v2.Upgrade{Strategy: &v2.UpgradeStrategy{Name: string(v2.ActionStrategyRetryOnFailure)}}
}

func TestDecide(t *testing.T) {
	uninstalls := func(r *v2.UpgradeRemediation) { r.Strategy = new(v2.UninstallRemediationStrategy) }
	remediatesLast := func(r *v2.UpgradeRemediation) { r.RemediateLastFailure = new(true) }
	install, upgrade := v2.ReleaseActionInstall, v2.ReleaseActionUpgrade
	for _, c := range []struct {
		name   string
		object *v2.HelmRelease
		found  condition
		forced bool
		back   previous
		want   step
		err    error
	}{
		{name: "nothing there", object: made(""), found: absent, want: stepInstall},
		{name: "install retries left", object: made(install, installFailures(1, 1)), found: absent, want: stepInstall},
		{name: "install retries exhausted", object: made(install, installFailures(2, 1)), found: absent, err: errRetriesExceeded},
		{name: "exhausted, but forced", object: made(install, installFailures(2, 1)), found: absent, forced: true, want: stepInstall},
		{name: "unlimited install retries", object: made(install, installFailures(99, -1)), found: absent, want: stepInstall},
		{name: "pending", object: made(upgrade), found: pending, want: stepUnlock},
		{name: "uninstall cut off", object: made(upgrade), found: vanishing, want: stepUninstall},
		{name: "somebody else's", object: made(upgrade), found: unmanaged, want: stepUpgrade},
		{name: "changed", object: made(install), found: outOfSync, want: stepUpgrade},
		{name: "changed, retries exhausted", object: made(upgrade, upgradeFailures(1, 0)), found: outOfSync, err: errRetriesExceeded},
		{name: "untested", object: made(install), found: untested, want: stepTest},
		{name: "in sync", object: made(install), found: inSync, want: stepNone},
		{name: "in sync and forced", object: made(install), found: inSync, forced: true, want: stepUpgrade},
		{name: "failed before a change", object: made(upgrade, upgradeFailures(0, 3)), found: failed, want: stepUpgrade},
		{name: "failed and forced", object: made(upgrade, upgradeFailures(1, 3)), found: failed, forced: true, want: stepUpgrade},
		{name: "failed install", object: made(install, installFailures(1, 1)), found: failed, want: stepUninstall},
		{name: "failed install, last", object: made(install, installFailures(1, 0)), found: failed, err: errRetriesExceeded},
		{name: "failed upgrade", object: made(upgrade, upgradeFailures(1, 1)), found: failed, back: previousIntact, want: stepRollback},
		{name: "failed upgrade, nothing to go back to", object: made(upgrade, upgradeFailures(1, 1)), found: failed, back: previousMissing, err: errNoRollbackTarget},
		{name: "failed upgrade, previous was changed", object: made(upgrade, upgradeFailures(1, 1)), found: failed, back: previousChanged, want: stepUpgrade},
		{name: "failed upgrade, to be uninstalled", object: made(upgrade, upgradeFailures(1, 1, uninstalls)), found: failed, want: stepUninstall},
		{name: "last upgrade left failed", object: made(upgrade, upgradeFailures(1, 0)), found: failed, err: errRetriesExceeded},
		{name: "last upgrade remediated", object: made(upgrade, upgradeFailures(1, 0, remediatesLast)), found: failed, back: previousIntact, want: stepRollback},
		{name: "retry on failure", object: made(upgrade, upgradeFailures(5, 0), retryOnFailure), found: failed, want: stepUpgrade},
	} {
		got, err := decide(c.object, state{condition: c.found}, c.forced, func() (previous, error) { return c.back, nil })
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, got, err, c.want, c.err)
		}
	}
	if _, err := decide(made(""), state{condition: unknowable}, false, nil); err == nil {
		t.Error("what cannot be known has a next step")
	}
}

func TestVerdicts(t *testing.T) {
	upgrade := v2.ReleaseActionUpgrade
	uninstalls := func(r *v2.UpgradeRemediation) { r.Strategy = new(v2.UninstallRemediationStrategy) }
	for _, c := range []struct {
		name           string
		object         *v2.HelmRelease
		repeated, done verdict
	}{
		{"retries left", made(upgrade, upgradeFailures(1, 2)), again, again},
		{"exhausted", made(upgrade, upgradeFailures(3, 2)), giveUp, giveUp},
		{"exhausted, uninstalled", made(upgrade, upgradeFailures(3, 2, uninstalls)), giveUp, again},
		{"retry on failure", made(upgrade, retryOnFailure), retryLater, retryLater},
	} {
		if got := beforeRepeated(c.object); got != c.repeated {
			t.Errorf("%s, before a repeated step: %d", c.name, got)
		}
		if got := afterRemediation(c.object); got != c.done {
			t.Errorf("%s, after a remediation: %d", c.name, got)
		}
	}
}

func stored(version int, status common.Status, values map[string]any) *helm.Release {
	return &helm.Release{
		Name: "web", Namespace: "default", Version: version, Config: values, Info: &helm.Info{Status: status},
		Chart: &chart.Chart{Metadata: &chart.Metadata{Name: "app", Version: "1.0.0"}},
	}
}

func TestStateOf(t *testing.T) {
	values := map[string]any{"a": "b"}
	deployed := stored(1, common.StatusDeployed, values)
	want := desired{chart: &chart.Metadata{Name: "app", Version: "1.0.0"}, values: values}
	snapshot := func(r *helm.Release) func(*v2.HelmRelease) {
		return func(o *v2.HelmRelease) {
			o.Status.History = v2.Snapshots{snapshotOf(r, v2.ReleaseActionInstall, "")}
			o.Status.ObservedGeneration = 1
		}
	}
	test := func(phase string) func(*v2.HelmRelease) {
		return func(o *v2.HelmRelease) {
			o.Spec.Test = &v2.Test{Enable: true}
			if phase != "" {
				o.Status.History.Latest().SetTestHooks(map[string]*v2.TestHookStatus{"t": {Phase: phase}})
			}
		}
	}
	for _, c := range []struct {
		name   string
		object *v2.HelmRelease
		last   *helm.Release
		want   desired
		found  condition
	}{
		{"nothing stored", made(""), nil, want, absent},
		{"pending", made(""), stored(1, common.StatusPendingInstall, nil), want, pending},
		{"uninstalling", made(""), stored(1, common.StatusUninstalling, nil), want, vanishing},
		{"no history", made(""), deployed, want, unmanaged},
		{"no history, uninstalled", made(""), stored(1, common.StatusUninstalled, nil), want, absent},
		{"in sync", made("", snapshot(deployed)), deployed, want, inSync},
		{"another release", made("", snapshot(deployed)), stored(2, common.StatusDeployed, values), want, unmanaged},
		{"changed by hand", made("", snapshot(deployed)), stored(1, common.StatusDeployed, nil), want, unmanaged},
		{"failed", made("", snapshot(stored(1, common.StatusFailed, values))), stored(1, common.StatusFailed, values), want, failed},
		{"newer chart", made("", snapshot(deployed)), deployed, desired{chart: &chart.Metadata{Name: "app", Version: "1.1.0"}, values: values}, outOfSync},
		{"other values", made("", snapshot(deployed)), deployed, desired{chart: want.chart}, outOfSync},
		{"values kept", made("", snapshot(deployed), func(o *v2.HelmRelease) { o.Spec.Upgrade = &v2.Upgrade{PreserveValues: true} }), deployed, desired{chart: want.chart}, inSync},
		{"rendered otherwise", made("", snapshot(deployed), func(o *v2.HelmRelease) {
			o.Generation = 2
			o.Spec.CommonMetadata = &v2.CommonMetadata{Labels: map[string]string{"a": "b"}}
		}), deployed, want, outOfSync},
		{"untested", made("", snapshot(deployed), test("")), deployed, want, untested},
		{"tested", made("", snapshot(deployed), test("Succeeded")), deployed, want, inSync},
		{"test failed", made(v2.ReleaseActionInstall, snapshot(deployed), test("Failed")), deployed, want, failed},
	} {
		got, err := stateOf(c.object, c.last, c.want)
		if err != nil || got.condition != c.found {
			t.Errorf("%s: %q (%s), %v; want %q", c.name, got.condition, got.reason, err, c.found)
		}
	}
	odd := stored(1, common.StatusUnknown, values)
	if _, err := stateOf(made("", snapshot(odd)), odd, want); err == nil {
		t.Error("a release of unknown status has a state")
	}
}

func TestSnapshotIgnoresTests(t *testing.T) {
	r := stored(1, common.StatusDeployed, nil)
	r.Hooks = []*helm.Hook{{Name: "t", Events: []helm.HookEvent{helm.HookTest}}, {Name: "h", Events: []helm.HookEvent{helm.HookPreInstall}}}
	s := snapshotOf(r, v2.ReleaseActionInstall, "sha256:1")
	r.Hooks[0].LastRun.Phase = helm.HookPhaseFailed
	if same, err := observed(s, r); err != nil || !same {
		t.Errorf("a test that somebody ran changes the release: %v", err)
	}
	r.Hooks[1].LastRun.Phase = helm.HookPhaseFailed
	if same, _ := observed(s, r); same {
		t.Error("another hook does not")
	}
}

func TestHistoryKeepsOrder(t *testing.T) {
	o := made("")
	h := history{&o.Status}
	h.record(stored(2, common.StatusPendingUpgrade, nil), v2.ReleaseActionUpgrade)
	h.record(stored(1, common.StatusSuperseded, nil), v2.ReleaseActionUpgrade) // made before our time
	h.record(stored(2, common.StatusDeployed, nil), v2.ReleaseActionUpgrade)
	if n := len(o.Status.History); n != 1 || o.Status.History[0].Status != "deployed" {
		t.Errorf("%d snapshots: %+v", n, o.Status.History[0])
	}
}
