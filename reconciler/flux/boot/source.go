package boot

import (
	"context"
	"net/url"
	"path"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// The reason of the conditions when a commit was refused, as Flux has it.
const verificationError = "VerificationError"

func (r *reconciler) reconcileSource(ctx context.Context) error {
	state := r.root.Source()
	after := &sourcev1.GitRepository{}
	found, err := r.get(ctx, after, sourceOwner, func() { fillSource(after, state) })
	if err != nil || !found {
		return err
	}
	if r.source != nil && r.source.UID == after.UID {
		after.Status = *r.source.Status.DeepCopy()
	}
	before := after.DeepCopy()
	r.root.SuspendSource(after.Spec.Suspend)
	r.asked(after, after.Status.LastHandledReconcileAt, &r.sourceRequest)
	showSource(after, state, r.env.Store.Get(source.BootKey))
	if r.sourceRequest.at != "" && state.Answered >= r.sourceRequest.number {
		after.Status.LastHandledReconcileAt = r.sourceRequest.at
	}
	if _, err := status.Write(ctx, r.client, before, after, sourceOwner); err != nil {
		return err
	}
	r.source = after
	return nil
}

// fillSource describes a repository that Git does not describe.
func fillSource(o *sourcev1.GitRepository, s Source) {
	o.Spec = sourcev1.GitRepositorySpec{
		URL:       apiURL(s.URL),
		Interval:  metaInterval(s.Interval),
		Reference: &sourcev1.GitRepositoryRef{Branch: s.Branch},
	}
}

// apiURL makes a URL of a kind that the API takes, http, https or ssh, of the
// others: user@host:path is ssh, and files are said to be on this machine.
func apiURL(repository string) string {
	u, err := url.Parse(repository)
	if err == nil && (u.Scheme == "https" || u.Scheme == "http" || u.Scheme == "ssh") {
		return repository
	}
	if host, file, ok := strings.Cut(repository, ":"); ok && !strings.Contains(host, "/") && !strings.HasPrefix(file, "//") {
		return "ssh://" + host + "/" + strings.TrimPrefix(file, "/")
	}
	if err == nil && u.Path != "" {
		return "ssh://localhost" + path.Join("/", u.Path)
	}
	return "ssh://localhost/"
}

// showSource writes what became of the newest commit into the status.
func showSource(o *sourcev1.GitRepository, s Source, artifact *source.Artifact) {
	if artifact != nil {
		o.Status.Artifact = artifact.Status(source.BootKey)
		stored := "stored artifact for revision '" + artifact.Revision + "'"
		conditions.MarkTrue(o, sourcev1.ArtifactInStorageCondition, meta.SucceededReason, "%s", stored)
		conditions.MarkTrue(o, meta.ReadyCondition, meta.SucceededReason, "%s", stored)
	} else {
		conditions.MarkUnknown(o, meta.ReadyCondition, meta.ProgressingReason, "waiting for the first commit that is accepted")
	}
	showVerdict(o, s)
	switch {
	case s.Refused == "" && s.FetchError == "" && artifact == nil:
		conditions.MarkReconciling(o, meta.ProgressingReason, "fetching")
	default:
		conditions.Delete(o, meta.ReconcilingCondition)
		o.Status.ObservedGeneration = o.Generation
	}
}

// showVerdict says what is wrong with the newest commit or the repository. The
// site stays on the artifact that it has.
func showVerdict(o *sourcev1.GitRepository, s Source) {
	conditions.Delete(o, sourcev1.FetchFailedCondition)
	conditions.Delete(o, sourcev1.SourceVerifiedCondition)
	if s.Signer != "" {
		conditions.MarkTrue(o, sourcev1.SourceVerifiedCondition, meta.SucceededReason, "verified signature of commit '%s' by %s", s.Revision, s.Signer)
	}
	switch {
	case s.FetchError != "":
		conditions.MarkTrue(o, sourcev1.FetchFailedCondition, sourcev1.GitOperationFailedReason, "%s", s.FetchError)
		conditions.MarkFalse(o, meta.ReadyCondition, sourcev1.GitOperationFailedReason, "%s", s.FetchError)
	case s.Refused != "":
		conditions.MarkFalse(o, sourcev1.SourceVerifiedCondition, verificationError, "refused %s: %s", s.Refused, s.Refusal)
		conditions.MarkFalse(o, meta.ReadyCondition, verificationError, "refused %s: %s", s.Refused, s.Refusal)
	}
}
