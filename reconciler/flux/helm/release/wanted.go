package release

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// wanted is what a release should be made of.
type wanted struct {
	artifact *source.Artifact
	// registry tells that the artifact comes from a registry and its revision
	// names a digest, which becomes part of the chart's version.
	registry  bool
	ociDigest string
	values    map[string]any
}

// obstacle is why a release cannot be looked after now.
type obstacle struct {
	reason string
	// stalls: nothing but a change helps, and changes are noticed.
	stalls bool
	// waits: something else has to become ready, which is noticed.
	waits bool
	err   error
}

// Error implements error.
func (o *obstacle) Error() string { return o.err.Error() }

// Unwrap gives the cause.
func (o *obstacle) Unwrap() error { return o.err }

// allowed refuses references to other namespaces where that is not wanted.
func (r *controller) allowed(object *v2.HelmRelease, kind, namespace, name string) error {
	if !r.env.NoCrossNamespaceRefs || namespace == object.Namespace {
		return nil
	}
	return &obstacle{reason: acl.AccessDeniedReason, stalls: true, err: fmt.Errorf(
		"can't access '%s/%s/%s', cross-namespace references have been blocked", kind, namespace, name)}
}

// prepare brings together what is wanted. Everything that stands in the way is
// an obstacle.
func (r *controller) prepare(ctx context.Context, object *v2.HelmRelease) (wanted, error) {
	if object.HasChartRef() == object.HasChartTemplate() {
		return wanted{}, &obstacle{reason: "InvalidChartReference", stalls: true, err: errors.New("exactly one of spec.chart and spec.chartRef must be set")}
	}
	if err := r.ensureChart(ctx, object); err != nil {
		return wanted{}, blocked("HelmChartSyncErr", err)
	}
	if err := r.dependenciesReady(ctx, object); err != nil {
		if errors.Is(err, errExpression) {
			return wanted{}, &obstacle{reason: meta.InvalidCELExpressionReason, stalls: true, err: err}
		}
		var denied *obstacle
		if errors.As(err, &denied) {
			return wanted{}, denied
		}
		return wanted{}, &obstacle{reason: v2.DependencyNotReadyReason, waits: true, err: err}
	}
	w, err := r.chartArtifact(ctx, object)
	if err != nil {
		return wanted{}, err
	}
	if w.values, err = valuesOf(ctx, r.client, object); err != nil {
		return wanted{}, blocked("ValuesError", err)
	}
	return w, nil
}

// blocked makes an error an obstacle, unless it is one already.
func blocked(reason string, err error) error {
	var o *obstacle
	if errors.As(err, &o) {
		return o
	}
	return &obstacle{reason: reason, err: err}
}

// reference names the source that a release's chart comes from.
func reference(object *v2.HelmRelease) source.Key {
	if ref := object.Spec.ChartRef; ref != nil {
		k := source.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
		if k.Namespace == "" {
			k.Namespace = object.Namespace
		}
		return k
	}
	return source.Key{
		Kind: sourcev1.HelmChartKind, Namespace: object.Spec.Chart.GetNamespace(object.Namespace), Name: object.GetHelmChartName(),
	}
}

// chartArtifact finds the artifact of the chart.
func (r *controller) chartArtifact(ctx context.Context, object *v2.HelmRelease) (wanted, error) {
	key := reference(object)
	if err := r.allowed(object, key.Kind, key.Namespace, key.Name); err != nil {
		return wanted{}, err
	}
	if err := r.sourceReady(ctx, key); err != nil {
		return wanted{}, err
	}
	artifact := r.env.Store.Get(key)
	if artifact == nil {
		return wanted{}, &obstacle{reason: "SourceNotReady", waits: true, err: fmt.Errorf(
			"%s '%s/%s' is not ready: does not have an artifact", key.Kind, key.Namespace, key.Name)}
	}
	return wanted{artifact: artifact, registry: key.Kind == sourcev1.OCIRepositoryKind}, nil
}

// sourceObject is what sources of charts have in common.
type sourceObject interface {
	conditions.Getter
	GetArtifact() *meta.Artifact
}

// sourceReady looks at the object of the source: an artifact of an older
// generation is not the one that is asked for.
func (r *controller) sourceReady(ctx context.Context, key source.Key) error {
	var object sourceObject
	var observed func() int64
	switch key.Kind {
	case sourcev1.HelmChartKind:
		c := new(sourcev1.HelmChart)
		object, observed = c, func() int64 { return c.Status.ObservedGeneration }
	case sourcev1.OCIRepositoryKind:
		o := new(sourcev1.OCIRepository)
		object, observed = o, func() int64 { return o.Status.ObservedGeneration }
	default:
		return &obstacle{reason: v2.ArtifactFailedReason, stalls: true, err: fmt.Errorf("spec.chartRef.kind %s is not supported here", key.Kind)}
	}
	name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
	if err := r.client.Get(ctx, name, object); err != nil {
		return &obstacle{reason: v2.ArtifactFailedReason, waits: client.IgnoreNotFound(err) == nil, err: fmt.Errorf("could not get Source object: %w", err)}
	}
	var problem string
	switch {
	case object.GetGeneration() != observed() && conditions.IsFalse(object, meta.ReadyCondition):
		problem = conditions.GetMessage(object, meta.ReadyCondition)
	case object.GetGeneration() != observed():
		problem = "latest generation of object has not been reconciled"
	case conditions.IsStalled(object):
		problem = conditions.GetMessage(object, meta.StalledCondition)
	case object.GetArtifact() == nil && conditions.IsFalse(object, meta.ReadyCondition):
		problem = conditions.GetMessage(object, meta.ReadyCondition)
	case object.GetArtifact() == nil:
		problem = "does not have an artifact"
	default:
		return nil
	}
	return &obstacle{reason: "SourceNotReady", waits: true, err: fmt.Errorf("%s '%s' is not ready: %s", key.Kind, name, problem)}
}

// metadata reads what the chart says about itself. A chart of a registry gets
// the digest of its artifact into its version, so that a tag that was moved is
// noticed.
func (w *wanted) metadata() (*chart.Metadata, error) {
	files, err := charts.FromArtifact(w.artifact.Files)
	if err != nil {
		return nil, err
	}
	m, err := files.Metadata()
	if err != nil {
		return nil, err
	}
	if !w.registry {
		return m, nil
	}
	tag, digest := splitRevision(w.artifact.Revision)
	version, err := semver.NewVersion(m.Version)
	if err != nil {
		return nil, fmt.Errorf("invalid chart version %s", m.Version)
	}
	if tagged, err := semver.StrictNewVersion(tag); err == nil && !tagged.Equal(version) {
		return nil, fmt.Errorf("artifact revision %s does not match chart version %s", tag, m.Version)
	}
	_, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) < 12 {
		return nil, fmt.Errorf("artifact revision %s names no digest", w.artifact.Revision)
	}
	marked, err := version.SetMetadata(hex[:12])
	if err != nil {
		return nil, fmt.Errorf("invalid chart version %s: %w", m.Version, err)
	}
	m.Version = marked.String()
	w.ociDigest = digest
	return m, nil
}

// splitRevision splits "<tag>@<digest>". A revision may be a digest alone.
func splitRevision(revision string) (tag, digest string) {
	if i := strings.LastIndex(revision, "@"); i >= 0 {
		return revision[:i], revision[i+1:]
	}
	return "", revision
}
