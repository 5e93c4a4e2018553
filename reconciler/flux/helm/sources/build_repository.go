package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/Masterminds/semver/v3"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"helm.sh/helm/v4/pkg/repo/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// obtain gets the chart that an object asks for from wherever it is.
func (r *chartController) obtain(ctx context.Context, job *jobs.Job, object, now *sourcev1.HelmChart) (*built, error) {
	if object.Spec.SourceRef.Kind != sourcev1.HelmRepositoryKind {
		return r.fromTree(ctx, job, object)
	}
	repository := new(sourcev1.HelmRepository)
	name := types.NamespacedName{Namespace: object.Namespace, Name: object.Spec.SourceRef.Name}
	if err := r.client.Get(ctx, name, repository); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, sourceMissing(fmt.Errorf("HelmRepository %s does not exist", name))
		}
		return nil, fmt.Errorf("read HelmRepository %s: %w", name, err)
	}
	if repository.Spec.Type == sourcev1.HelmRepositoryTypeOCI {
		return r.fromRegistry(ctx, job, object, now, repository)
	}
	return r.fromRepository(ctx, job, object, repository)
}

// sourceMissing says that a chart waits for its source.
func sourceMissing(err error) error {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: "SourceUnavailable", waits: true, err: err}
}

// fromRepository gets a chart that an index names.
func (r *chartController) fromRepository(ctx context.Context, job *jobs.Job, object *sourcev1.HelmChart,
	repository *sourcev1.HelmRepository,
) (*built, error) {
	if object.Spec.Verify != nil {
		return nil, verificationFailed(errors.New("only charts of registries can be verified; " +
			"use a HelmRepository of type oci or remove spec.verify"))
	}
	artifact := r.store.Get(sourceOf(object))
	if artifact == nil {
		return nil, sourceMissing(fmt.Errorf("the index of HelmRepository %s is not there yet", keyOf(repository)))
	}
	entry, err := pickEntry(artifact, object.Spec.Chart, object.Spec.Version)
	if err != nil {
		return nil, chartMissing(err)
	}
	version, err := r.versionOf(object, entry.Version)
	if err != nil {
		return nil, buildFailed("InvalidChartVersion", err)
	}
	if r.upToDate(object, entry.Name, version) {
		return r.asBefore(object), nil
	}
	access, _, err := r.access.access(ctx, repository)
	if err != nil {
		return nil, accessFailed(err)
	}
	from, err := remote.NewRepository(repository.Spec.URL, access, repository.Spec.PassCredentials)
	if err != nil {
		return nil, fetchFailed(err)
	}
	defer from.Close()
	var content []byte
	job.Wait(func() { content, err = from.FetchChart(ctx, entry) })
	if err != nil {
		return nil, fetchFailed(err)
	}
	got := &built{name: entry.Name, version: version, archive: content, source: artifact.Revision}
	return finish(got, object, entry.Version)
}

func accessFailed(err error) error {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.AuthenticationFailedReason, err: err}
}

// chartMissing says that what is asked for is not in the source. A newer index
// may name it; the source tells when there is one.
func chartMissing(err error) error {
	reason := "ChartPullError"
	if errors.Is(err, remote.ErrNoSuchChart) || errors.Is(err, remote.ErrNoVersion) {
		reason = "InvalidChartReference"
	}
	return &problem{
		condition: sourcev1.FetchFailedCondition, reason: reason, stalls: reason == "InvalidChartReference",
		err: fmt.Errorf("invalid chart reference: %w", err),
	}
}

// pickEntry finds a version of a chart in an index.
func pickEntry(artifact *source.Artifact, chart, wanted string) (*repo.ChartVersion, error) {
	index, err := artifact.Files.Open(indexName)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	defer func() { _ = index.Close() }() // only read
	seeker, ok := index.(io.ReadSeeker)
	if !ok {
		return nil, errors.New("read index: the artifact cannot be read twice")
	}
	entries, err := remote.Find(seeker, chart)
	if err != nil {
		return nil, err
	}
	entry, err := newestOf(entries, wanted)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	return entry, nil
}

// versionOf returns the version that the artifact of a fetched chart has. Merged
// values files make another chart of it, which the generation of the object
// tells apart.
func (r *chartController) versionOf(object *sourcev1.HelmChart, version string) (string, error) {
	if len(object.Spec.ValuesFiles) == 0 {
		return version, nil
	}
	return withBuild(version, strconv.FormatInt(object.Generation, 10))
}

// withBuild returns a version with other build metadata.
func withBuild(version, build string) (string, error) {
	parsed, err := semver.NewVersion(version)
	if err != nil {
		return "", fmt.Errorf("version %q of the chart: %w", version, err)
	}
	marked, err := parsed.SetMetadata(build)
	if err != nil {
		return "", fmt.Errorf("version %q of the chart: %w", version, err)
	}
	return marked.String(), nil
}

// upToDate tells whether the artifact that is there is the one of this version.
func (r *chartController) upToDate(object *sourcev1.HelmChart, name, version string) bool {
	return r.published(object) && object.Generation == object.Status.ObservedGeneration &&
		object.Status.ObservedChartName == name && object.Status.Artifact.Revision == version
}

// asBefore describes the artifact that is there.
func (r *chartController) asBefore(object *sourcev1.HelmChart) *built {
	return &built{
		name: object.Status.ObservedChartName, version: object.Status.Artifact.Revision,
		values: object.Status.ObservedValuesFiles, packaged: r.packages(object),
	}
}

// packages tells whether archives of this object are made here.
func (r *chartController) packages(object *sourcev1.HelmChart) bool {
	return object.Spec.SourceRef.Kind != sourcev1.HelmRepositoryKind || len(object.Status.ObservedValuesFiles) > 0
}

// finish checks that a fetched archive holds the chart that it should, and
// merges values files into it.
func finish(got *built, object *sourcev1.HelmChart, version string) (*built, error) {
	files, err := charts.FromArchive(bytes.NewReader(got.archive))
	if err != nil {
		return nil, buildFailed("ChartPackageError", err)
	}
	m, err := files.Metadata()
	if err != nil {
		return nil, buildFailed("ChartPackageError", err)
	}
	if m.Name != got.name || m.Version != version {
		return nil, buildFailed("ChartPackageError", fmt.Errorf("asked for chart %s version %s, but the archive holds %s version %s",
			got.name, version, m.Name, m.Version))
	}
	if len(object.Spec.ValuesFiles) == 0 {
		return got, nil
	}
	files, got.values, err = files.WithValues(charts.ValuesFiles{
		Names: object.Spec.ValuesFiles, IgnoreMissing: object.Spec.IgnoreMissingValuesFiles,
	})
	if err != nil {
		return nil, buildFailed("ValuesFilesError", err)
	}
	return repack(got, files)
}

// repack makes the archive anew, with the version of the artifact.
func repack(got *built, files charts.Files) (*built, error) {
	files, err := files.WithVersion(got.version)
	if err != nil {
		return nil, buildFailed("ChartPackageError", err)
	}
	if got.archive, err = files.Pack(); err != nil {
		return nil, buildFailed("ChartPackageError", err)
	}
	got.packaged = true
	return got, nil
}
