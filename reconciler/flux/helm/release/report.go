package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The messages are worded as Flux words them: people and programs look for them.
const (
	installFailed        = "Helm install failed for release %s/%s with chart %s@%s: %s"
	installSucceeded     = "Helm install succeeded for release %s with chart %s"
	upgradeFailed        = "Helm upgrade failed for release %s/%s with chart %s@%s: %s"
	upgradeSucceeded     = "Helm upgrade succeeded for release %s with chart %s"
	testPending          = "Helm release %s with chart %s is awaiting tests"
	testFailedFormat     = "Helm test failed for release %s with chart %s: %s"
	testSucceededFormat  = "Helm test succeeded for release %s with chart %s: %s"
	rollbackFailed       = "Helm rollback to previous release %s with chart %s failed: %s"
	rollbackSucceeded    = "Helm rollback to previous release %s with chart %s succeeded"
	uninstallFailed      = "Helm uninstall failed for release %s with chart %s: %s"
	uninstallSucceeded   = "Helm uninstall succeeded for release %s with chart %s"
	remediationFailed    = "Helm uninstall remediation for release %s with chart %s failed: %s"
	remediationSucceeded = "Helm uninstall remediation for release %s with chart %s succeeded"
	unlockFailed         = "Unlock of Helm release %s with chart %s in %s state failed: %s"
	unlockSucceeded      = "Unlocked Helm release %s with chart %s in %s state"
)

// released records that an action made a release.
func (a *attempt) released(r releasing) {
	current := a.object.Status.History.Latest()
	if current == nil {
		return
	}
	message := fmt.Sprintf(r.succeededFormat, current.FullReleaseName(), current.VersionedChartName())
	conditions.MarkTrue(a.object, v2.ReleasedCondition, r.succeededReason, "%s", message)
	if a.object.GetTest().Enable && !current.HasBeenTested() {
		conditions.MarkUnknown(a.object, v2.TestSuccessCondition, "AwaitingTests", testPending,
			current.FullReleaseName(), current.VersionedChartName())
	}
	if r.retry != nil {
		a.object.Status.ClearFailures()
	}
	a.tell(eventv1.EventSeverityInfo, r.succeededReason, message, current)
}

// releaseFailed records that an action did not make a release.
func (a *attempt) releaseFailed(r releasing, err error) {
	message := fmt.Sprintf(r.failedFormat, a.object.GetReleaseNamespace(), releaseName(a.object),
		a.meta.Name, a.meta.Version, oneLine(err))
	a.object.Status.Failures++
	conditions.MarkFalse(a.object, v2.ReleasedCondition, r.failedReason, "%s", message)
	a.tell(eventv1.EventSeverityError, r.failedReason, a.withLog(message), nil)
}

// summarize makes Ready of what Released, TestSuccess and Remediated say: of the
// newest of them, and of equally new ones in the order of Remediated,
// TestSuccess, Released.
func summarize(object *v2.HelmRelease) {
	order := []string{v2.RemediatedCondition, v2.ReleasedCondition}
	test := object.GetTest()
	if test.Enable && !test.IgnoreFailures {
		order = []string{v2.RemediatedCondition, v2.TestSuccessCondition, v2.ReleasedCondition}
	}
	if !test.Enable {
		conditions.Delete(object, v2.TestSuccessCondition)
	}
	var chosen *metav1.Condition
	for _, kind := range order {
		c := conditions.Get(object, kind)
		if c != nil && (chosen == nil || c.ObservedGeneration > chosen.ObservedGeneration) {
			chosen = c
		}
	}
	if chosen == nil {
		return
	}
	status := chosen.Status
	if chosen.Type == v2.RemediatedCondition {
		status = metav1.ConditionFalse // remediation is always due to a failure
	}
	if status == metav1.ConditionTrue {
		conditions.Delete(object, meta.StalledCondition)
	}
	conditions.Set(object, &metav1.Condition{
		Type: meta.ReadyCondition, Status: status, Reason: chosen.Reason, Message: chosen.Message,
		ObservedGeneration: object.Generation,
	})
	object.Status.ObservedPostRenderersDigest = digestOfRenderers(object)
	object.Status.ObservedCommonMetadataDigest = digestOfMetadata(object)
}

// tell reports an event about a release, or about what was to become one.
func (a *attempt) tell(severity, reason, message string, s *v2.Snapshot) {
	facts := map[string]string{}
	put := func(key, value string) {
		if value != "" {
			facts[key] = value
		}
	}
	if s != nil {
		put(eventv1.MetaRevisionKey, s.ChartVersion)
		put(eventv1.MetaTokenKey, s.ConfigDigest)
		put("app-version", s.AppVersion)
		put("oci-digest", s.OCIDigest)
	} else {
		put(eventv1.MetaRevisionKey, a.meta.Version)
		put(eventv1.MetaTokenKey, digestOfValues(a.want.values))
		put("app-version", a.meta.AppVersion)
		put("oci-digest", a.object.Status.LastAttemptedRevisionDigest)
	}
	a.events.Event(a.object, severity, reason, message, facts)
}

// oneLine keeps the message of an error fit for a condition.
func oneLine(err error) string { return strings.TrimSpace(err.Error()) }

// withLog adds what Helm said last to a message.
func (a *attempt) withLog(message string) string {
	lines := a.actionLog.String()
	if lines == "" {
		return message
	}
	return message + "\n\nLast Helm logs:\n\n" + lines
}

// releaseName returns the name of a release in the storage, which Helm wants to
// be short.
func releaseName(object *v2.HelmRelease) string {
	const most, hash = 53, 12
	name := object.GetReleaseName()
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:most-hash-1] + "-" + hex.EncodeToString(sum[:])[:hash]
}

// maxLines is how much of what Helm says is kept for messages.
const maxLines = 10

// lastLines is a log handler that keeps the last lines, and hands them on as
// debugging: what Helm says on the way is of interest only if it fails.
type lastLines struct {
	next slog.Handler

	mu    sync.Mutex
	lines []string
}

// Enabled implements slog.Handler.
func (l *lastLines) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelDebug
}

// Handle implements slog.Handler.
func (l *lastLines) Handle(ctx context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	r.Attrs(func(attr slog.Attr) bool {
		fmt.Fprintf(&line, " %s=%v", attr.Key, attr.Value)
		return true
	})
	l.mu.Lock()
	l.lines = append(l.lines, line.String())
	if len(l.lines) > maxLines {
		l.lines = slices.Delete(l.lines, 0, len(l.lines)-maxLines)
	}
	l.mu.Unlock()
	r.Level = slog.LevelDebug
	if l.next == nil || !l.next.Enabled(ctx, r.Level) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler. What is said with attributes is kept with
// the rest.
func (l *lastLines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *lastLines) WithGroup(string) slog.Handler { return l }

func (l *lastLines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

// String returns the lines.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
