package release

import (
	"fmt"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/action"
	helm "helm.sh/helm/v4/pkg/release/v1"
)

// test runs the tests of the release that was made last.
func (a *attempt) test() error {
	defer summarize(a.object)
	current := a.object.Status.History.Latest()
	if current == nil {
		return fmt.Errorf("%w: required for test", errNoCurrent)
	}
	err := a.runTest(current)
	if err != nil {
		a.testFailed(err)
		if !a.object.Status.History.Latest().HasBeenTested() {
			return err
		}
		return nil
	}
	a.testSucceeded()
	return nil
}

// runTest is Helm's test with the filters of the object. What it stores are the
// results.
func (a *attempt) runTest(current *v2.Snapshot) (err error) {
	spec := a.object.GetTest()
	config, stored, err := a.configuration(func(r *helm.Release) {
		latest := a.object.Status.History.Latest()
		if latest.Targets(r.Name, r.Namespace, r.Version) {
			history{&a.object.Status}.update(r, latest.Action)
			a.object.Status.History.Latest().SetTestHooks(testsOf(r, spec.GetFilters()))
		}
	})
	if err != nil {
		return err
	}
	defer stored.close()
	test := action.NewReleaseTesting(config)
	test.Namespace = a.object.GetReleaseNamespace()
	test.Timeout = a.timeout(stepTest)
	for _, filter := range spec.GetFilters() {
		kind := action.IncludeNameFilter
		if filter.Exclude {
			kind = action.ExcludeNameFilter
		}
		test.Filters[kind] = append(test.Filters[kind], filter.Name)
	}
	tested, cleanUp, err := test.Run(current.Name)
	if problem := cleanUp(); problem != nil {
		a.log.Warn("cannot remove what tests left behind", "error", problem)
	}
	if err != nil {
		return err
	}
	if r, err := typed(tested); err != nil || !current.Targets(r.Name, r.Namespace, r.Version) {
		return fmt.Errorf("the release that was tested is not %s: somebody else made a newer one", current.FullReleaseName())
	}
	return nil
}

func (a *attempt) testFailed(err error) {
	current := a.object.Status.History.Latest()
	message := fmt.Sprintf(testFailedFormat, current.FullReleaseName(), current.VersionedChartName(), oneLine(err))
	a.object.Status.Failures++
	conditions.MarkFalse(a.object, v2.TestSuccessCondition, v2.TestFailedReason, "%s", message)
	a.tell(eventv1.EventSeverityError, v2.TestFailedReason, message, current)
	remediation := a.object.GetActiveRemediation()
	if current.HasBeenTested() && remediation != nil &&
		!remediation.MustIgnoreTestFailures(a.object.GetTest().IgnoreFailures) {
		remediation.IncrementFailureCount(a.object)
	}
}

func (a *attempt) testSucceeded() {
	current := a.object.Status.History.Latest()
	hooks := "no test hooks"
	switch n := testsSelected(current); {
	case n == 1:
		hooks = "1 test hook completed successfully"
	case n > 1:
		hooks = fmt.Sprintf("%d test hooks completed successfully", n)
	}
	message := fmt.Sprintf(testSucceededFormat, current.FullReleaseName(), current.VersionedChartName(), hooks)
	conditions.MarkTrue(a.object, v2.TestSuccessCondition, v2.TestSucceededReason, "%s", message)
	a.tell(eventv1.EventSeverityInfo, v2.TestSucceededReason, message, current)
}
