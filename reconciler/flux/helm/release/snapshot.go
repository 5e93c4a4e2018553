package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	helm "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// observation is what of a release counts for its digest. Its form is Flux's, so
// that releases which Flux made are recognised and left alone.
type observation struct {
	Name          string         `json:"name"`
	Version       int            `json:"version"`
	Info          helm.Info      `json:"info"`
	ChartMetadata chart.Metadata `json:"chartMetadata"`
	Config        map[string]any `json:"config"`
	Manifest      string         `json:"manifest"`
	Hooks         []helm.Hook    `json:"hooks"`
	Namespace     string         `json:"namespace"`
	OCIDigest     string         `json:"ociDigest,omitempty"`
}

// observe takes a release without its chart and without the tests, which
// anybody may run at any time.
func observe(r *helm.Release, ociDigest string) observation {
	o := observation{
		Name: r.Name, Version: r.Version, Manifest: r.Manifest, Namespace: r.Namespace, OCIDigest: ociDigest,
	}
	if r.Info != nil {
		o.Info = *r.Info
	}
	if r.Chart != nil && r.Chart.Metadata != nil {
		o.ChartMetadata = *r.Chart.Metadata
	}
	if len(r.Config) > 0 {
		o.Config = r.Config
	}
	for _, hook := range r.Hooks {
		if !slices.Contains(hook.Events, helm.HookTest) {
			o.Hooks = append(o.Hooks, *hook)
		}
	}
	return o
}

func (o observation) digest() (string, error) {
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode(o); err != nil {
		return "", fmt.Errorf("digest of release %s: %w", o.Name, err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// snapshotOf describes a release for the history in the status.
func snapshotOf(r *helm.Release, action v2.ReleaseAction, ociDigest string) *v2.Snapshot {
	o := observe(r, ociDigest)
	digest, err := o.digest()
	if err != nil {
		// A release that cannot be encoded could not have been stored.
		digest = ""
	}
	return &v2.Snapshot{
		APIVersion: v2.CurrentSnapshotAPIVersion, Digest: digest, Action: action, OCIDigest: ociDigest,
		Name: r.Name, Namespace: r.Namespace, Version: r.Version, Status: o.Info.Status.String(),
		ChartName: o.ChartMetadata.Name, ChartVersion: o.ChartMetadata.Version, AppVersion: o.ChartMetadata.AppVersion,
		ConfigDigest:  digestOfValues(r.Config),
		FirstDeployed: metav1.NewTime(o.Info.FirstDeployed), LastDeployed: metav1.NewTime(o.Info.LastDeployed),
		Deleted: metav1.NewTime(o.Info.Deleted),
	}
}

// observed tells whether a release is the one that a snapshot was taken of.
// Snapshots of older versions of Flux cannot be compared and are trusted.
func observed(s *v2.Snapshot, r *helm.Release) (bool, error) {
	if s.APIVersion != v2.CurrentSnapshotAPIVersion {
		return true, nil
	}
	digest, err := observe(r, s.OCIDigest).digest()
	return digest == s.Digest, err
}

// testsOf returns how the tests of a release went that the filters select.
func testsOf(r *helm.Release, filters []v2.Filter) map[string]*v2.TestHookStatus {
	tests := map[string]*v2.TestHookStatus{}
	for _, hook := range r.Hooks {
		if slices.Contains(hook.Events, helm.HookTest) && selected(hook.Name, filters) {
			tests[hook.Name] = &v2.TestHookStatus{
				LastStarted: metav1.NewTime(hook.LastRun.StartedAt), LastCompleted: metav1.NewTime(hook.LastRun.CompletedAt),
				Phase: hook.LastRun.Phase.String(),
			}
		}
	}
	return tests
}

func selected(test string, filters []v2.Filter) bool {
	included, anyIncluded := false, false
	for _, f := range filters {
		switch {
		case f.Exclude && f.Name == test:
			return false
		case !f.Exclude:
			anyIncluded = true
			included = included || f.Name == test
		}
	}
	return included || !anyIncluded
}

// history changes the snapshots in the status as releases are written to the
// storage.
type history struct {
	status *v2.HelmReleaseStatus
}

// find returns the place of a release's snapshot, or -1.
func (h history) find(r *helm.Release) int {
	return slices.IndexFunc(h.status.History, func(s *v2.Snapshot) bool { return s.Targets(r.Name, r.Namespace, r.Version) })
}

// record takes a snapshot of what was stored: in place of the older one of the
// same release, whose test results and origin stay, or before all others if it
// is a newer release. Older releases that have no snapshot are not ours.
func (h history) record(r *helm.Release, action v2.ReleaseAction) {
	at := h.find(r)
	if at < 0 {
		if latest := h.status.History.Latest(); latest == nil || r.Version > latest.Version {
			s := snapshotOf(r, action, h.status.LastAttemptedRevisionDigest)
			h.status.History = slices.Insert(h.status.History, 0, s)
		}
		return
	}
	old := h.status.History[at]
	if old.Action != "" && at > 0 || action == "" {
		action = old.Action
	}
	s := snapshotOf(r, action, old.OCIDigest)
	if old.TestHooks != nil {
		s.SetTestHooks(maps.Clone(old.GetTestHooks()))
	}
	h.status.History[at] = s
}

// update is record for releases that already have a snapshot.
func (h history) update(r *helm.Release, action v2.ReleaseAction) {
	if h.find(r) >= 0 {
		h.record(r, action)
	}
}
