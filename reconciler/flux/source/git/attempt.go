package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// attempt is one reconcile of one object.
type attempt struct {
	*reconciler
	job *job
	obj *sourcev1.GitRepository
	// before has the status last written.
	before *sourcev1.GitRepository
	key    source.Key
}

// problem is why there is no new artifact. condition is the one of Flux's that
// says so besides Ready.
type problem struct {
	condition, reason, message string
	// stalled problems last until somebody changes the object.
	stalled bool
	// waiting problems end by themselves.
	waiting bool
}

func (p *problem) Error() string { return p.message }

func unsupported(message string) *problem {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: "Unsupported", message: message, stalled: true}
}

func fetchFailed(err error) *problem {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.GitOperationFailedReason, message: err.Error()}
}

func unverified(err error) *problem {
	return &problem{condition: sourcev1.SourceVerifiedCondition, reason: "VerificationError", message: err.Error()}
}

// run brings the artifact up to date and writes the status.
func (a *attempt) run(ctx context.Context) (ctrl.Result, error) {
	if err := a.open(); err != nil {
		return ctrl.Result{}, err
	}
	a.restore(ctx)
	if a.obj.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	if wait := a.due(); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	started := a.now()
	p := a.update(ctx)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // told to end, which is no failure
	}
	a.job.fetched = a.now()
	return a.report(ctx, p, started)
}

// open opens the mirror. A damaged one is fetched again.
func (a *attempt) open() error {
	if a.job.mirror != nil {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of mirrors: %w", err)
	}
	m, err := mirror.Open(a.job.dir, mirror.Limits{})
	if errors.Is(err, mirror.ErrCorrupt) && m != nil {
		a.log.Warn("the mirror of a GitRepository is fetched again", "gitrepository", a.key.String(), "error", err)
		err = m.Reset()
	}
	if err != nil {
		return fmt.Errorf("mirror of %s: %w", a.key, err)
	}
	a.job.mirror = m
	return nil
}

// restore puts the artifact of an earlier process into the store, from the
// mirror alone, with everything verified anew.
func (a *attempt) restore(ctx context.Context) {
	if a.job.restored || a.env.Store.Get(a.key) != nil {
		return
	}
	a.job.restored = true
	stored := a.obj.Status.Artifact
	if stored == nil || a.obj.Generation != a.obj.Status.ObservedGeneration || a.check() != nil {
		return
	}
	f, ok := a.lastFetched(stored)
	if !ok || !a.job.mirror.Has(f.Commit) {
		return
	}
	if p := a.deliver(ctx, f); p != nil {
		a.log.Info("the artifact of the last run is not used", "gitrepository", a.key.String(), "reason", p.message)
	}
}

// due returns how long there is nothing to do; 0 to do it now.
func (a *attempt) due() time.Duration {
	j := a.job
	at, asked := meta.ReconcileAnnotationValue(a.obj.GetAnnotations())
	if j.fetched.IsZero() || asked && at != a.obj.Status.LastHandledReconcileAt ||
		a.obj.Generation != a.obj.Status.ObservedGeneration || a.fields() != j.made {
		return 0
	}
	interval := a.obj.Spec.Interval.Duration
	if j.failures > 0 {
		interval = min(interval, retryMin<<min(j.failures-1, 6), retryMax)
	}
	// The interval has jitter; one that ends a little early is over.
	if left := interval - a.now().Sub(j.fetched); left > interval/10 {
		return left
	}
	return 0
}

// check finds what is wrong with the object itself.
func (a *attempt) check() *problem {
	spec := &a.obj.Spec
	switch {
	case spec.RecurseSubmodules:
		return unsupported("submodules are not fetched (spec.recurseSubmodules); put their files into the repository, or make a GitRepository of each and name it in spec.include")
	case a.obj.GetProvider() != sourcev1.GitProviderGeneric:
		return unsupported(fmt.Sprintf("spec.provider %s is not supported; put a token or a key into a Secret and name it in spec.secretRef", spec.Provider))
	}
	return nil
}

// defaultTimeout is Flux's.
const defaultTimeout = time.Minute

// update fetches and delivers.
func (a *attempt) update(ctx context.Context) *problem {
	if p := a.check(); p != nil {
		return p
	}
	timeout := defaultTimeout
	if a.obj.Spec.Timeout != nil {
		timeout = a.obj.Spec.Timeout.Duration
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	remote, err := a.remote(ctx)
	if err != nil {
		return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.AuthenticationFailedReason, message: err.Error()}
	}
	f, err := a.job.mirror.FetchReference(ctx, remote, a.haves()...)
	switch {
	case errors.Is(err, mirror.ErrCorrupt), errors.Is(err, mirror.ErrMissing):
		if reset := a.job.mirror.Reset(); reset != nil {
			err = errors.Join(err, reset)
		}
		return fetchFailed(err)
	case err != nil:
		return fetchFailed(err)
	}
	return a.deliver(ctx, f)
}

// haves names the commit of the last artifact, which the server need not send.
func (a *attempt) haves() []string {
	if stored := a.obj.Status.Artifact; stored != nil {
		if id := commitOf(stored.Revision); id != "" {
			return []string{id}
		}
	}
	return nil
}

// deliver verifies a commit and puts its files into the store, unless they are
// there.
func (a *attempt) deliver(ctx context.Context, f mirror.Fetched) *problem {
	verified, err := a.verify(ctx, f)
	if err != nil {
		return unverified(err)
	}
	raw, err := a.job.mirror.Object(mirror.CommitObject, f.Commit)
	if err != nil {
		return fetchFailed(err)
	}
	commit, err := signers.ParseCommit(raw)
	if err != nil {
		return fetchFailed(fmt.Errorf("commit %s: %w", f.Commit, err))
	}
	files, included, p := a.files(commit)
	if p != nil {
		return p
	}
	artifact := &source.Artifact{
		Revision: revisionOf(a.obj.Spec.Reference, f), Digest: digest(f.Commit, a.fields()), Files: files, At: a.now(),
		AllowPrune: allowPrune(a.job.mirror, f.Commit),
	}
	old := a.env.Store.Get(a.key)
	if stored := a.obj.Status.Artifact; stored != nil && stored.Revision == artifact.Revision && stored.Digest == artifact.Digest {
		artifact.At = stored.LastUpdateTime.Time
	}
	a.showVerified(verified)
	a.showArtifact(artifact, included)
	a.job.made = a.fields()
	if old == nil || old.Revision != artifact.Revision || old.Digest != artifact.Digest {
		a.env.Store.Set(a.key, artifact)
		a.announce(commit, artifact)
	}
	return nil
}

// fields identifies everything besides the commit that an artifact is made from.
func (a *attempt) fields() string {
	spec := &a.obj.Spec
	data, err := json.Marshal([]any{spec.URL, spec.Reference, spec.Ignore, spec.SparseCheckout, spec.Include, spec.Verification, a.includedDigests()})
	if err != nil {
		return err.Error() // strings and lists of them are always encoded
	}
	return string(data)
}

// digest identifies the content of an artifact. The commit alone does it for
// one that is not cut.
func digest(commit, fields string) string {
	sum := sha256.Sum256([]byte(commit + "\n" + fields))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// showArtifact puts the artifact into the status.
func (a *attempt) showArtifact(artifact *source.Artifact, included []*meta.Artifact) {
	s := &a.obj.Status
	s.Artifact, s.IncludedArtifacts = artifact.Status(a.key), included
	s.ObservedIgnore, s.ObservedInclude, s.ObservedSparseCheckout = a.obj.Spec.Ignore, a.obj.Spec.Include, a.obj.Spec.SparseCheckout
	s.ObservedRecurseSubmodules = a.obj.Spec.RecurseSubmodules
	conditions.MarkTrue(a.obj, sourcev1.ArtifactInStorageCondition, meta.SucceededReason, "%s", stored(artifact.Revision))
}

func stored(revision string) string { return "stored artifact for revision '" + revision + "'" }

// announce reports a new artifact.
func (a *attempt) announce(c *signers.Commit, artifact *source.Artifact) {
	if a.before.Status.Artifact != nil && a.before.Status.Artifact.Revision == artifact.Revision {
		return // known to everybody from the last run
	}
	a.log.Info("GitRepository has a new revision", "gitrepository", a.key.String(), "revision", artifact.Revision)
	if a.env.Events != nil {
		a.env.Events.Event(a.obj, eventv1.EventSeverityInfo, "NewArtifact", fmt.Sprintf("stored artifact for commit '%s'", c.Subject()),
			map[string]string{eventv1.MetaRevisionKey: artifact.Revision, eventv1.MetaDigestKey: artifact.Digest})
	}
}

// report writes the status and says when the next reconcile is.
func (a *attempt) report(ctx context.Context, p *problem, started time.Time) (ctrl.Result, error) {
	a.obj.Status.ObservedGeneration = a.obj.Generation
	if at, ok := meta.ReconcileAnnotationValue(a.obj.GetAnnotations()); ok {
		a.obj.Status.LastHandledReconcileAt = at
	}
	a.showOutcome(p)
	changed, err := status.Write(ctx, a.client, a.before, a.obj, owner)
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	a.job.status = *a.obj.Status.DeepCopy()
	if changed && a.env.Metrics != nil {
		a.env.Metrics.RecordDuration(corev1.ObjectReference{Kind: a.key.Kind, Namespace: a.key.Namespace, Name: a.key.Name}, started)
	}
	interval := a.obj.Spec.Interval.Duration
	if p == nil {
		a.job.failures = 0
		return ctrl.Result{RequeueAfter: jitter.JitteredIntervalDuration(interval)}, nil
	}
	a.job.made = a.fields()
	a.job.failures++
	if changed && a.env.Events != nil && !p.waiting {
		a.env.Events.Event(a.obj, eventv1.EventSeverityError, p.reason, p.message, nil)
	}
	return ctrl.Result{RequeueAfter: min(interval, retryMin<<min(a.job.failures-1, 6), retryMax)}, nil
}

// showOutcome sets the conditions. The artifact of before stays whatever the
// problem is.
func (a *attempt) showOutcome(p *problem) {
	o := a.obj
	conditions.Delete(o, meta.ReconcilingCondition)
	conditions.Delete(o, meta.StalledCondition)
	conditions.Delete(o, sourcev1.FetchFailedCondition)
	if p == nil {
		conditions.MarkTrue(o, meta.ReadyCondition, meta.SucceededReason, "%s", stored(o.Status.Artifact.Revision))
		return
	}
	conditions.MarkFalse(o, meta.ReadyCondition, p.reason, "%s", p.message)
	switch {
	case p.condition == sourcev1.SourceVerifiedCondition:
		conditions.MarkFalse(o, p.condition, p.reason, "%s", p.message)
	case p.condition != "":
		conditions.MarkTrue(o, p.condition, p.reason, "%s", p.message)
	}
	if p.stalled {
		conditions.MarkStalled(o, p.reason, "%s", p.message)
	}
}
