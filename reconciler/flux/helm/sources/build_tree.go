package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// fromTree builds a chart that lies among the files of an artifact.
func (r *chartController) fromTree(ctx context.Context, job *jobs.Job, object *sourcev1.HelmChart) (*built, error) {
	if object.Spec.Verify != nil {
		return nil, verificationFailed(errors.New("only charts of registries can be verified; remove spec.verify " +
			"and verify the source instead"))
	}
	artifact := r.store.Get(sourceOf(object))
	if artifact == nil {
		return nil, sourceMissing(fmt.Errorf("%s '%s/%s' has no artifact yet",
			object.Spec.SourceRef.Kind, object.Namespace, object.Spec.SourceRef.Name))
	}
	place := cleanPath(object.Spec.Chart)
	files, err := readChart(artifact.Files, place)
	if err != nil {
		return nil, treeFailed(err)
	}
	m, err := files.Metadata()
	if err != nil {
		return nil, treeFailed(err)
	}
	version, err := treeVersion(object, artifact, m.Version)
	if err != nil {
		return nil, buildFailed("InvalidChartVersion", err)
	}
	if r.upToDate(object, m.Name, version) {
		return r.asBefore(object), nil
	}
	files, err = files.Complete(ctx, artifact.Files, place, r.dependency(job, object.Namespace))
	if err != nil {
		return nil, buildFailed("DependencyBuildError", err)
	}
	files, used, err := files.WithValues(charts.ValuesFiles{
		Names: object.Spec.ValuesFiles, IgnoreMissing: object.Spec.IgnoreMissingValuesFiles, From: artifact.Files,
	})
	if err != nil {
		return nil, buildFailed("ValuesFilesError", err)
	}
	return repack(&built{name: m.Name, version: version, values: used, source: artifact.Revision}, files)
}

// treeFailed is about what somebody has to change in the source.
func treeFailed(err error) error {
	reason := "ChartPackageError"
	if errors.Is(err, charts.ErrNoChart) || errors.Is(err, fs.ErrNotExist) {
		reason = "InvalidChartReference"
	}
	return &problem{condition: sourcev1.BuildFailedCondition, reason: reason, stalls: true, err: err}
}

// cleanPath keeps a path of a user inside of the source.
func cleanPath(p string) string {
	clean := strings.TrimPrefix(path.Clean("/"+p), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// readChart reads a chart that is a directory or an archive.
func readChart(fsys fs.FS, place string) (charts.Files, error) {
	info, err := fs.Stat(fsys, place)
	if err != nil {
		return nil, fmt.Errorf("chart %q: %w", place, err)
	}
	if info.IsDir() {
		return charts.FromDir(fsys, place)
	}
	content, err := fs.ReadFile(fsys, place)
	if err != nil {
		return nil, fmt.Errorf("chart %q: %w", place, err)
	}
	return charts.FromArchive(bytes.NewReader(content))
}

// treeVersion returns the version of the artifact: the chart's own, or marked
// with the revision of the source if every revision is to be another chart.
func treeVersion(object *sourcev1.HelmChart, artifact *source.Artifact, version string) (string, error) {
	if !followsRevision(object) {
		return version, nil
	}
	mark := artifact.Revision
	if i := strings.LastIndex(mark, ":"); i >= 0 {
		mark = mark[i+1:]
	}
	mark = mark[:min(len(mark), 12)]
	if len(object.Spec.ValuesFiles) > 0 {
		mark += "." + strconv.FormatInt(object.Generation, 10)
	}
	return withBuild(version, mark)
}

// identified are files that can name what a path holds without reading it.
type identified interface {
	ID(name string) (string, error)
}

// treeInputs names what a chart reads of an artifact: if that does not change
// with a newer revision, neither does the chart.
func treeInputs(artifact *source.Artifact, object *sourcev1.HelmChart) string {
	files, ok := artifact.Files.(identified)
	place := cleanPath(object.Spec.Chart)
	if !ok || readsElsewhere(artifact.Files, place) {
		return artifact.Revision + " " + artifact.Digest
	}
	paths := []string{place}
	for _, name := range object.Spec.ValuesFiles {
		paths = append(paths, cleanPath(name))
	}
	var inputs strings.Builder
	for _, p := range paths {
		id, err := files.ID(p)
		if err != nil {
			id = "-"
		}
		fmt.Fprintf(&inputs, "%s=%s ", p, id)
	}
	return inputs.String()
}

// readsElsewhere tells whether a chart takes dependencies from outside of its
// own directory.
func readsElsewhere(fsys fs.FS, place string) bool {
	for _, name := range []string{"Chart.yaml", "requirements.yaml"} {
		content, err := fs.ReadFile(fsys, path.Join(place, name))
		if err == nil && bytes.Contains(content, []byte("file://")) {
			return true
		}
	}
	return false
}

// dependency returns how dependencies that a chart does not bring along are
// fetched: with the credentials of the HelmRepository of its namespace that has
// the same address, or with none.
func (r *chartController) dependency(job *jobs.Job, namespace string) charts.Fetch {
	return func(ctx context.Context, d *chart.Dependency) (charts.Files, error) {
		repository, err := r.repositoryAt(ctx, namespace, d.Repository)
		if err != nil {
			return nil, err
		}
		access, keychain, err := r.access.access(ctx, repository)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, repository.GetTimeout())
		defer cancel()
		var content []byte
		if strings.HasPrefix(d.Repository, "oci://") {
			registry, err := remote.NewRegistry(d.Repository, access, keychain, repository.Spec.Insecure)
			if err != nil {
				return nil, err
			}
			defer registry.Close()
			job.Wait(func() { content, err = pullDependency(ctx, registry, d) })
			if err != nil {
				return nil, err
			}
			return charts.FromArchive(bytes.NewReader(content))
		}
		from, err := remote.NewRepository(d.Repository, access, repository.Spec.PassCredentials)
		if err != nil {
			return nil, err
		}
		defer from.Close()
		job.Wait(func() { content, err = r.fetchDependency(ctx, from, d) })
		if err != nil {
			return nil, err
		}
		return charts.FromArchive(bytes.NewReader(content))
	}
}

// repositoryAt returns the HelmRepository of a namespace with an address, or one
// that only has the address.
func (r *chartController) repositoryAt(ctx context.Context, namespace, address string) (*sourcev1.HelmRepository, error) {
	if strings.HasPrefix(address, "@") || strings.HasPrefix(address, "alias:") {
		return nil, fmt.Errorf("repository %q is a name of somebody's own configuration; write its URL", address)
	}
	list := new(sourcev1.HelmRepositoryList)
	if err := r.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list HelmRepositories: %w", err)
	}
	for i := range list.Items {
		if strings.TrimSuffix(list.Items[i].Spec.URL, "/") == strings.TrimSuffix(address, "/") {
			return &list.Items[i], nil
		}
	}
	plain := new(sourcev1.HelmRepository)
	plain.Namespace = namespace
	plain.Spec.URL = address
	return plain, nil
}

func pullDependency(ctx context.Context, registry *remote.Registry, d *chart.Dependency) ([]byte, error) {
	pulled, err := registry.Resolve(ctx, d.Name, d.Version)
	if err != nil {
		return nil, err
	}
	return pulled.Content()
}

// fetchDependency gets a chart of a repository whose index is fetched for this
// alone. The dependencies of a chart are fetched only when it is built.
func (r *chartController) fetchDependency(ctx context.Context, from *remote.Repository, d *chart.Dependency) (content []byte, err error) {
	if err := os.MkdirAll(r.files.dir, 0o700); err != nil {
		return nil, err
	}
	index, err := os.CreateTemp(r.files.dir, "dependency-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, index.Close(), os.Remove(index.Name())) }()
	if _, _, err := from.FetchIndex(ctx, remote.Validators{}, index); err != nil {
		return nil, err
	}
	if _, err := index.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	entries, err := remote.Find(index, d.Name)
	if err != nil {
		return nil, err
	}
	entry, err := newestOf(entries, d.Version)
	if err != nil {
		return nil, err
	}
	return from.FetchChart(ctx, entry)
}

// newestOf picks among the versions of a chart.
func newestOf(entries []*repo.ChartVersion, wanted string) (*repo.ChartVersion, error) {
	versions := make([]string, len(entries))
	for i, entry := range entries {
		versions[i] = entry.Version
	}
	version, err := remote.Newest(versions, wanted)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Version == version {
			return entry, nil
		}
	}
	return nil, remote.ErrNoVersion
}
