package objects

import (
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// SourceFailed says why a source has no newer artifact. what is the condition
// that is true now, such as FetchFailed.
func SourceFailed(object conditions.Setter, what, reason string, err error) {
	for _, other := range []string{sourcev1.FetchFailedCondition, sourcev1.BuildFailedCondition, sourcev1.StorageOperationFailedCondition} {
		if other != what {
			conditions.Delete(object, other)
		}
	}
	conditions.MarkTrue(object, what, reason, "%s", err)
	conditions.MarkFalse(object, meta.ReadyCondition, reason, "%s", err)
}

// Retrying says that what failed is tried again.
func Retrying(object conditions.Setter, err error) {
	conditions.Delete(object, meta.StalledCondition)
	conditions.MarkReconciling(object, meta.ProgressingWithRetryReason, "%s", err)
}

// Stalled says that what failed is not tried again until something changes.
func Stalled(object conditions.Setter, reason string, err error) {
	conditions.Delete(object, meta.ReconcilingCondition)
	conditions.MarkStalled(object, reason, "%s", err)
}

// SourceSucceeded says that the newest artifact is there.
func SourceSucceeded(object conditions.Setter, reason, message string) {
	for _, over := range []string{
		sourcev1.FetchFailedCondition, sourcev1.BuildFailedCondition, sourcev1.StorageOperationFailedCondition,
		sourcev1.ArtifactOutdatedCondition, meta.StalledCondition, meta.ReconcilingCondition,
	} {
		conditions.Delete(object, over)
	}
	conditions.MarkTrue(object, sourcev1.ArtifactInStorageCondition, reason, "%s", message)
	conditions.MarkTrue(object, meta.ReadyCondition, reason, "%s", message)
}
