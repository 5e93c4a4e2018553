package release

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/release/common"
	helm "helm.sh/helm/v4/pkg/release/v1"
)

// condition of a release, as storage and cluster show it.
type condition string

const (
	absent      condition = "absent"
	unmanaged   condition = "unmanaged" // somebody else's, or changed by somebody else
	pending     condition = "pending"   // an action was cut off
	vanishing   condition = "vanishing" // an uninstall was cut off
	failed      condition = "failed"
	outOfSync   condition = "out of sync"
	untested    condition = "untested"
	inSync      condition = "in sync"
	unknowable  condition = "unknowable"
	testFailure           = "release has test in failed phase"
)

// state is what was found, and why that is so.
type state struct {
	condition condition
	reason    string
}

// desired is what a release should be.
type desired struct {
	chart  *chart.Metadata
	values map[string]any
}

// stateOf compares the newest release in storage, which is nil if there is none,
// with the object and with what is desired. It looks at nothing else.
func stateOf(object *v2.HelmRelease, last *helm.Release, want desired) (state, error) {
	if last == nil {
		return state{absent, "no release in storage for object"}, nil
	}
	if last.Info.Status.IsPending() {
		return state{pending, fmt.Sprintf("release with status '%s'", last.Info.Status)}, nil
	}
	if last.Info.Status == common.StatusUninstalling {
		return state{vanishing, "an uninstall was cut off"}, nil
	}
	current := object.Status.History.Latest()
	if current == nil {
		if last.Info.Status == common.StatusUninstalled {
			return state{absent, "found uninstalled release in storage"}, nil
		}
		return state{unmanaged, "found existing release in storage"}, nil
	}
	same, err := observed(current, last)
	if err != nil {
		return state{condition: unknowable}, err
	}
	if !same {
		return state{unmanaged, "release in storage is not the one that was made last: it was changed by somebody else"}, nil
	}
	switch last.Info.Status {
	case common.StatusFailed:
		return state{failed, "release with status 'failed'"}, nil
	case common.StatusUninstalled:
		return state{absent, "found uninstalled release in storage"}, nil
	case common.StatusDeployed:
		return deployedState(object, last, current, want), nil
	}
	return state{condition: unknowable}, fmt.Errorf("release %s.v%d has status %q, which says nothing about what to do; "+
		"roll it back or uninstall it with helm", last.Name, last.Version, last.Info.Status)
}

// deployedState compares a release that is deployed with what is desired.
func deployedState(object *v2.HelmRelease, last *helm.Release, current *v2.Snapshot, want desired) state {
	made := last.Chart.Metadata
	switch {
	case made.Name != want.chart.Name || made.Version != want.chart.Version:
		return state{outOfSync, "release chart changed"}
	case !sameValues(object, last, current, want.values):
		return state{outOfSync, "release config values changed"}
	case renderingChanged(object):
		return state{outOfSync, "post renderers or common metadata changed"}
	}
	test := object.GetTest()
	if !test.Enable {
		return state{inSync, ""}
	}
	if !current.HasBeenTested() {
		return state{untested, ""}
	}
	remediation := object.GetActiveRemediation()
	if remediation != nil && !remediation.MustIgnoreTestFailures(test.IgnoreFailures) &&
		current.HasTestInPhase(helm.HookPhaseFailed.String()) {
		return state{failed, testFailure}
	}
	return state{inSync, ""}
}

// sameValues tells whether a release has the values that are wanted. Where the
// values of earlier releases are kept, it has them if merging changes nothing.
func sameValues(object *v2.HelmRelease, last *helm.Release, current *v2.Snapshot, values map[string]any) bool {
	if object.GetUpgrade().PreserveValues {
		merged := loader.MergeMaps(copyValues(last.Config), copyValues(values))
		return reflect.DeepEqual(merged, copyValues(last.Config))
	}
	return current.ConfigDigest == digestOfValues(values)
}

// renderingChanged tells whether an object was changed in how it renders since
// it was last in order.
func renderingChanged(object *v2.HelmRelease) bool {
	if object.Status.ObservedGeneration == object.Generation {
		return false
	}
	return object.Status.ObservedPostRenderersDigest != digestOfRenderers(object) ||
		object.Status.ObservedCommonMetadataDigest != digestOfMetadata(object)
}

// failuresAreOld tells whether the failures that were counted are about
// something else than what is wanted now, and why.
func failuresAreOld(object *v2.HelmRelease, want desired) (string, bool) {
	// The request is noted as handled even if something else decides.
	reset := v2.ShouldHandleResetRequest(object)
	switch {
	case object.Status.LastAttemptedGeneration != object.Generation:
		return "generation differs from last attempt", true
	case object.Status.LastAttemptedRevision != want.chart.Version:
		return "chart version differs from last attempt", true
	case object.Status.LastAttemptedConfigDigest != "" && object.Status.LastAttemptedConfigDigest != digestOfValues(want.values):
		return "values differ from last attempt", true
	case reset:
		return "reset requested through annotation", true
	}
	return "", false
}

// targetChanged tells whether the release is to be another one than it was, so
// that the old one has to go first, and in what.
func targetChanged(object *v2.HelmRelease, chartName string) (string, bool) {
	current := object.Status.History.Latest()
	switch {
	case object.Status.StorageNamespace == "" || current == nil:
		return "", false
	case object.GetStorageNamespace() != object.Status.StorageNamespace:
		return "storage namespace", true
	case object.GetReleaseNamespace() != current.Namespace:
		return "release namespace", true
	case releaseName(object) != current.Name:
		return "release name", true
	case chartName != current.ChartName:
		return "chart name", object.GetUpgrade().GetChartNameChangeStrategy() == v2.ChartNameChangeStrategyReinstall
	}
	return "", false
}

// truncate drops the snapshots that nobody can go back to.
func truncate(object *v2.HelmRelease) {
	if object.GetActiveRetry(false) != nil {
		object.Status.History.TruncateIgnoringPreviousSnapshots()
		return
	}
	ignoreTests := object.GetTest().IgnoreFailures
	if remediation := object.GetActiveRemediation(); remediation != nil {
		ignoreTests = remediation.MustIgnoreTestFailures(ignoreTests)
	}
	object.Status.History.Truncate(ignoreTests)
}

// testsSelected counts the tests of a snapshot, for messages.
func testsSelected(s *v2.Snapshot) int { return len(slices.Collect(maps.Keys(s.GetTestHooks()))) }
