package release

import (
	"errors"
	"fmt"

	v2 "github.com/fluxcd/helm-controller/api/v2"
)

// step is one thing to do.
type step string

const (
	stepNone      step = ""
	stepUnlock    step = "unlock"
	stepInstall   step = "install"
	stepUpgrade   step = "upgrade"
	stepTest      step = "test"
	stepRollback  step = "rollback"
	stepUninstall step = "uninstall"
	stepCorrect   step = "correct cluster drift"
)

// kind of a step. In one attempt, there is one step of each kind.
func (s step) kind() string {
	switch s {
	case stepInstall, stepUpgrade:
		return "release"
	case stepRollback, stepUninstall:
		return "remediate"
	}
	return string(s)
}

var (
	// errRetriesExceeded says that nothing is tried any more until something
	// changes.
	errRetriesExceeded = errors.New("exceeded maximum retries")
	// errNoRollbackTarget says that there is nothing to roll back to.
	errNoRollbackTarget = errors.New("missing target release for rollback")
)

// previous is what is known of the release that a rollback would go back to.
type previous int

const (
	previousMissing previous = iota // there never was one
	previousChanged                 // it is gone from storage, or was changed
	previousIntact
)

// decide returns the next step. forced says that a release was asked for in so
// many words; back is only asked if a rollback is considered.
func decide(object *v2.HelmRelease, s state, forced bool, back func() (previous, error)) (step, error) {
	switch s.condition {
	case absent:
		return decideAbsent(object, forced)
	case pending:
		return stepUnlock, nil
	case vanishing:
		return stepUninstall, nil
	case unmanaged:
		return stepUpgrade, nil
	case outOfSync:
		if object.GetUpgrade().GetRemediation().RetriesExhausted(object) && !forced {
			return stepNone, fmt.Errorf("%w: cannot upgrade release", errRetriesExceeded)
		}
		return stepUpgrade, nil
	case untested:
		return stepTest, nil
	case inSync:
		if forced {
			return stepUpgrade, nil
		}
		return stepNone, nil
	case failed:
		return decideFailed(object, forced, back)
	}
	return stepNone, fmt.Errorf("release is %s: %s", s.condition, s.reason)
}

func decideAbsent(object *v2.HelmRelease, forced bool) (step, error) {
	if object.GetInstall().GetRemediation().RetriesExhausted(object) && !forced {
		return stepNone, fmt.Errorf("%w: cannot install release", errRetriesExceeded)
	}
	return stepInstall, nil
}

// decideFailed chooses between another upgrade and going back.
func decideFailed(object *v2.HelmRelease, forced bool, back func() (previous, error)) (step, error) {
	if object.GetActiveRetry(false) != nil {
		return stepUpgrade, nil
	}
	remediation := object.GetActiveRemediation()
	// Without a count, what made it fail was something else than what is wanted
	// now.
	if remediation == nil || remediation.GetFailureCount(object) <= 0 || forced {
		return stepUpgrade, nil
	}
	if remediation.RetriesExhausted(object) && !remediation.MustRemediateLastFailure() {
		return stepNone, fmt.Errorf("%w: cannot remediate failed release", errRetriesExceeded)
	}
	switch strategy := remediation.GetStrategy(); strategy {
	case v2.UninstallRemediationStrategy:
		return stepUninstall, nil
	case v2.RollbackRemediationStrategy:
		return decideRollback(back)
	default:
		return stepNone, fmt.Errorf("unknown remediation strategy %q", strategy)
	}
}

func decideRollback(back func() (previous, error)) (step, error) {
	found, err := back()
	if err != nil {
		return stepNone, err
	}
	switch found {
	case previousMissing:
		return stepNone, fmt.Errorf("%w: cannot remediate failed release", errNoRollbackTarget)
	case previousChanged:
		// Going back to something that is not what it was would be worse.
		return stepUpgrade, nil
	}
	return stepRollback, nil
}

// verdict says how an attempt goes on after a step was taken.
type verdict int

const (
	goOn       verdict = iota
	again              // at once, as a new attempt
	retryLater         // after the interval of the retry strategy
	giveUp             // until something changes
)

// afterFailure and its kin decide what the attempt comes to when the next step
// may not be taken in it any more.
func beforeRepeated(object *v2.HelmRelease) verdict {
	if object.GetActiveRetry(false) != nil {
		return retryLater
	}
	if r := object.GetActiveRemediation(); r == nil || !r.RetriesExhausted(object) {
		return again
	}
	return giveUp
}

// afterRemediation decides how it goes on after a rollback or an uninstall.
func afterRemediation(object *v2.HelmRelease) verdict {
	if object.GetActiveRetry(false) != nil {
		return retryLater
	}
	r := object.GetActiveRemediation()
	if r == nil || !r.RetriesExhausted(object) || r.IsUninstallAfterUpgrade() {
		return again
	}
	return giveUp
}
