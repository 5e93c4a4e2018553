package sources

import (
	"context"
	"fmt"
	"path"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
)

// fromRegistry gets a chart of an OCI registry.
func (r *chartController) fromRegistry(ctx context.Context, job *jobs.Job, object, now *sourcev1.HelmChart,
	repository *sourcev1.HelmRepository,
) (*built, error) {
	ctx, cancel := context.WithTimeout(ctx, repository.GetTimeout())
	defer cancel()
	access, keychain, err := r.access.access(ctx, repository)
	if err != nil {
		return nil, accessFailed(err)
	}
	if err := supportedProvider(repository.Spec.Provider); err != nil {
		return nil, accessFailed(err)
	}
	registry, err := remote.NewRegistry(repository.Spec.URL, access, keychain, repository.Spec.Insecure)
	if err != nil {
		return nil, fetchFailed(err)
	}
	defer registry.Close()

	var pulled *remote.Pulled
	job.Wait(func() { pulled, err = registry.Resolve(ctx, object.Spec.Chart, object.Spec.Version) })
	if err != nil {
		return nil, chartMissing(err)
	}
	if err := r.verify(ctx, job, now, registry, pulled); err != nil {
		return nil, err
	}
	// Charts may lie in folders of the registry; their name is the last part.
	name := path.Base(strings.Trim(object.Spec.Chart, "/"))
	version, err := r.versionOf(object, pulled.Version)
	if err != nil {
		return nil, buildFailed("InvalidChartVersion", err)
	}
	if r.upToDate(object, name, version) {
		return r.asBefore(object), nil
	}
	var content []byte
	job.Wait(func() { content, err = pulled.Content() })
	if err != nil {
		return nil, fetchFailed(err)
	}
	got := &built{name: name, version: version, archive: content, source: pulled.Reference.DigestStr()}
	return finish(got, object, pulled.Version)
}

// supportedProvider refuses to guess at credentials of clouds.
func supportedProvider(provider string) error {
	if provider == "" || provider == "generic" {
		return nil
	}
	return fmt.Errorf("spec.provider %q is not supported here; use \"generic\" with a spec.secretRef", provider)
}
