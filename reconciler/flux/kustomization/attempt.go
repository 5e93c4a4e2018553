package kustomization

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// attempt is one reconcile of one object.
type attempt struct {
	*reconciler
	job *job
	obj *kustomizev1.Kustomization
	// before has the status last written.
	before  *kustomizev1.Kustomization
	started time.Time
	// wasReady is the condition when the attempt began.
	wasReady *metav1.Condition

	// What is applied, once that is known.
	revision, originRevision string
	// worked says that something was built or sent, followed that only the
	// revision moved on, applied that the cluster holds the revision.
	worked, followed, applied bool
}

// artifactGrace is how long an object that was ready when the process started
// waits for its source before it says that there is nothing.
const artifactGrace = time.Minute

// reconcile does what is missing between the artifact and the cluster.
func (a *attempt) reconcile(ctx context.Context) verdict {
	a.wasReady = conditions.Get(a.obj, meta.ReadyCondition).DeepCopy()
	ctx, cancel := context.WithTimeout(ctx, a.obj.GetTimeout())
	defer cancel()
	if p := a.check(); p != nil {
		return verdict{problem: p}
	}
	artifact := a.env.Store.Get(sourceKey(a.obj))
	if artifact == nil {
		return a.awaitArtifact(ctx)
	}
	a.originRevision = artifact.OriginRevision
	w, p := a.todo(ctx, artifact)
	if p != nil {
		a.revision = artifact.Revision
		return verdict{problem: p}
	}
	switch w {
	case workBuild:
		return a.renew(ctx, artifact)
	case workFollow:
		return a.followTo(ctx, artifact)
	}
	a.revision = a.job.look().revision
	if a.job.problem != nil {
		return verdict{problem: a.job.problem}
	}
	return a.sync(ctx)
}

// check finds what is wrong with the object itself.
func (a *attempt) check() *problem {
	key, spec := sourceKey(a.obj), &a.obj.Spec
	switch {
	case a.env.NoCrossNamespaceRefs && key.Namespace != a.obj.Namespace:
		return accessDenied(fmt.Sprintf("can't access '%s', cross-namespace references have been blocked", key))
	case key.Kind != sourcev1.GitRepositoryKind && key.Kind != sourcev1.OCIRepositoryKind:
		return &problem{
			reason: meta.ArtifactFailedReason, stalled: true,
			message: fmt.Sprintf("sources of kind %s are not supported; use a GitRepository or an OCIRepository", key.Kind),
		}
	case spec.Decryption != nil && spec.Decryption.ServiceAccountName != "" && spec.Decryption.SecretRef == nil:
		return &problem{
			reason: meta.FeatureGateDisabledReason, stalled: true,
			message: "spec.decryption.serviceAccountName is for key services of cloud providers, which are not supported; put an age or OpenPGP key into a Secret and name it in spec.decryption.secretRef",
		}
	case spec.KubeConfig != nil && spec.KubeConfig.SecretRef == nil:
		return &problem{
			reason: meta.ReconciliationFailedReason, stalled: true,
			message: "spec.kubeConfig.configMapRef is for identities of cloud providers, which are not supported; put a kubeconfig into a Secret and name it in spec.kubeConfig.secretRef",
		}
	}
	if len(spec.HealthCheckExprs) > 0 && a.job.generation != a.obj.Generation {
		if _, err := cel.NewStatusReader(spec.HealthCheckExprs); err != nil {
			return invalidExpression(err)
		}
	}
	return nil
}

// awaitArtifact says that the source has delivered nothing. The store calls
// when it has.
func (a *attempt) awaitArtifact(ctx context.Context) verdict {
	key := sourceKey(a.obj)
	var object client.Object = &sourcev1.GitRepository{}
	if key.Kind == sourcev1.OCIRepositoryKind {
		object = &sourcev1.OCIRepository{}
	}
	err := a.client.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, object)
	switch {
	case apierrors.IsNotFound(err):
		return failed(meta.ArtifactFailedReason, fmt.Errorf("Source '%s' not found", &a.obj.Spec.SourceRef)) //nolint:staticcheck // Flux's message
	case err != nil:
		return verdict{err: fmt.Errorf("read source %s: %w", key, err)}
	}
	if conditions.IsReady(a.obj) && a.job.engine == nil {
		// The source may only need some time after the start of the process.
		if a.job.patience.IsZero() {
			a.job.patience = a.now().Add(artifactGrace)
		}
		if left := a.job.patience.Sub(a.now()); left > 0 {
			return verdict{nothing: true, after: left}
		}
	}
	return failed(meta.ArtifactFailedReason, errors.New("Source artifact not found")) //nolint:staticcheck // Flux's message
}

// work is what an object needs.
type work int

const (
	workSync   work = iota // look whether the cluster has drifted, or become healthy
	workFollow             // the new revision holds the same
	workBuild              // build and apply
)

// todo decides what the object needs. It reads Secrets and ConfigMaps if they
// may have changed.
func (a *attempt) todo(ctx context.Context, artifact *source.Artifact) (work, *problem) {
	j := a.job
	current := j.look()
	switch {
	case j.reads == nil, j.generation != a.obj.Generation, a.requested(), j.engine == nil && j.problem == nil,
		!current.settled && j.mayPrune != a.mayPrune():
		return workBuild, nil
	case a.inputsDue():
		in, err := a.loadInputs(ctx)
		if err != nil {
			return 0, &problem{reason: meta.BuildFailedReason, message: err.Error()}
		}
		j.inputsAt = a.now()
		if in.digest != j.inputs.digest {
			return workBuild, nil
		}
	}
	switch {
	case current.has(artifact) && (current.status.LastAppliedRevision == artifact.Revision || !current.settled):
		return workSync, nil
	case j.same(artifact.Files) && current.settled:
		return workFollow, nil
	case j.same(artifact.Files) && j.problem != nil:
		// The same files make the same failure.
		j.startOn(artifact)
		return workSync, nil //nolint:nilerr // the problem is reported as before
	}
	return workBuild, nil
}

// requested reports whether somebody asked for a reconcile that has not been
// made.
func (a *attempt) requested() bool {
	at, ok := meta.ReconcileAnnotationValue(a.obj.GetAnnotations())
	return ok && at != a.obj.Status.LastHandledReconcileAt && at != a.job.requested
}

// followTo lets the status follow to a revision that holds the same.
func (a *attempt) followTo(ctx context.Context, artifact *source.Artifact) verdict {
	if p := a.awaitDependencies(ctx, artifact.Revision); p != nil {
		return verdict{nothing: true, after: a.obj.GetRetryInterval()}
	}
	if a.job.turn.IsZero() {
		a.job.turn = a.now().Add(a.follow.Reserve().Delay())
	}
	if wait := a.job.turn.Sub(a.now()); wait > 0 {
		return verdict{nothing: true, after: wait}
	}
	a.job.turn = time.Time{}
	a.job.skipTo(artifact)
	a.revision, a.followed = artifact.Revision, true
	return a.sync(ctx)
}

// renew builds the artifact and applies it.
func (a *attempt) renew(ctx context.Context, artifact *source.Artifact) verdict {
	a.revision = artifact.Revision
	if p := a.awaitDependencies(ctx, artifact.Revision); p != nil {
		return verdict{problem: p}
	}
	a.worked = true
	a.job.began, a.job.health = a.started, time.Time{}
	if at, ok := meta.ReconcileAnnotationValue(a.obj.GetAnnotations()); ok {
		a.job.requested = at
	}
	in, err := a.loadInputs(ctx)
	if err != nil {
		return a.buildFailed(artifact, nil, err)
	}
	result, err := a.build(ctx, artifact, in)
	if ctx.Err() != nil {
		return failed(meta.BuildFailedReason, fmt.Errorf("build %s: %w", artifact.Revision, ctx.Err()))
	}
	if err != nil {
		return a.buildFailed(artifact, result, err)
	}
	a.job.generation, a.job.problem, a.job.inputs, a.job.inputsAt = a.obj.Generation, nil, in, a.now()
	a.job.setReads(result.Reads)
	a.job.result = digestOf(result.Objects)
	a.job.startOn(artifact)
	if p := a.prepareEngine(ctx); p != nil {
		a.job.setReads(nil)
		return verdict{problem: p}
	}
	if err := a.job.engine.Set(apply.Desired{Commit: artifact.Revision, Objects: result.Objects, AllowPrune: a.allowPrune(artifact)}); err != nil {
		a.job.setReads(nil)
		return failed(meta.ReconciliationFailedReason, err)
	}
	return a.sync(ctx)
}

// buildFailed keeps why a build failed, with what it read, so that it is not
// made again as long as that is the same.
func (a *attempt) buildFailed(artifact *source.Artifact, result *build.Result, err error) verdict {
	a.job.setReads(nil)
	p := &problem{reason: meta.BuildFailedReason, message: err.Error()}
	if result != nil {
		a.job.setReads(result.Reads)
		a.job.problem = p
		a.job.generation = a.obj.Generation
	}
	a.job.startOn(artifact)
	return verdict{problem: p}
}

func (a *attempt) build(ctx context.Context, artifact *source.Artifact, in inputs) (*build.Result, error) {
	return build.Build(ctx, artifact.Files, build.Options{
		Dir: a.obj.Spec.Path, Kustomization: a.obj,
		Substitute: in.variables, Decrypt: in.decryptor,
		Skip: build.FluxComponents,
	})
}

// allowPrune reports whether a large deletion since the applied revision is
// meant.
func (a *attempt) allowPrune(artifact *source.Artifact) func(string) bool {
	since := a.obj.Status.LastAppliedRevision
	a.job.mayPrune = a.mayPrune()
	return func(string) bool {
		return a.job.mayPrune || artifact.AllowPrune != nil && artifact.AllowPrune(since)
	}
}

// mayPrune reports whether the object's annotation allows large deletions.
func (a *attempt) mayPrune() bool { return a.obj.Annotations[AllowPruneAnnotation] == "true" }

// prepareEngine makes the engine, or changes it to the present options.
func (a *attempt) prepareEngine(ctx context.Context) *problem {
	t, err := a.targetOf(ctx)
	if err != nil {
		return &problem{reason: meta.ReconciliationFailedReason, message: err.Error()}
	}
	if a.job.target != nil && a.job.target != t {
		a.job.release()
	}
	options := a.options(t)
	if a.job.engine == nil {
		a.job.hold(apply.NewEngine(t.client, options), t)
	} else {
		a.job.engine.Configure(options)
	}
	return nil
}

// inventoryName is the inventory label's value on objects of all
// Kustomizations; Flux's labels say of which.
const inventoryName = "kustomization"

func (a *attempt) options(t *target) apply.Options {
	name := a.name()
	o := OptionsOf(a.obj)
	o.Store, o.Hub = &inventory{job: a.job}, t.hub
	o.Notify = func() { a.enqueue(priorityDrift, name) }
	o.Log = a.log.With("kustomization", name.String())
	return o
}

// OptionsOf says how the objects of a Kustomization are applied. Where the
// inventory is kept, and who watches, is the caller's to add.
func OptionsOf(obj *kustomizev1.Kustomization) apply.Options {
	spec := &obj.Spec
	o := apply.Options{
		Name: inventoryName,
		Labels: map[string]string{
			kustomizev1.GroupVersion.Group + "/name":      obj.Name,
			kustomizev1.GroupVersion.Group + "/namespace": obj.Namespace,
		},
		Force: spec.Force, Prune: spec.Prune, Guard: true,
		HealthExprs: spec.HealthCheckExprs, Wait: spec.Wait,
		Self: apply.ID{Group: kustomizev1.GroupVersion.Group, Version: kustomizev1.GroupVersion.Version, Kind: kustomizev1.KustomizationKind, Namespace: obj.Namespace, Name: obj.Name},
	}
	for _, rule := range spec.Ignore {
		o.Ignore = append(o.Ignore, apply.IgnoreRule{Paths: rule.Paths, Target: rule.Target})
	}
	if !spec.Wait {
		o.Extra = healthChecks(obj)
	}
	return o
}

// healthChecks lists what is named in the object, without itself.
func healthChecks(obj *kustomizev1.Kustomization) []apply.ID {
	var ids []apply.ID
	for _, ref := range obj.Spec.HealthChecks {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			continue // the API server has validated it
		}
		if ref.Kind == kustomizev1.KustomizationKind && ref.Namespace == obj.Namespace && ref.Name == obj.Name {
			continue
		}
		ids = append(ids, apply.ID{Group: gv.Group, Version: gv.Version, Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
	}
	return ids
}

// sync brings the cluster to what was built, as far as it is known to differ,
// and looks at the health.
func (a *attempt) sync(ctx context.Context) verdict {
	pass, err := a.job.engine.Sync(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failed(meta.ReconciliationFailedReason, fmt.Errorf("the objects could not be applied within %s: %w", a.obj.GetTimeout(), err))
	case err != nil:
		return verdict{err: err}
	}
	a.reportPass(pass)
	switch {
	case len(pass.Failures) > 0:
		return verdict{problem: &problem{reason: meta.ReconciliationFailedReason, message: a.job.inputs.redact(failuresText(pass.Failures))}}
	case pass.Guard != nil:
		return verdict{problem: &problem{reason: meta.PruneFailedReason, message: pass.Guard.Problem +
			"; if that is meant, push a commit with the line \"" + apply.AllowPruneTrailer + ": true\" at the end of its message, or annotate the Kustomization with " + AllowPruneAnnotation + "=true"}}
	}
	if len(pass.Replacing) > 0 {
		return verdict{progress: fmt.Sprintf("Waiting for the deletion of %s, which is created anew", subject(pass.Replacing[0])), after: a.obj.GetRetryInterval()}
	}
	a.applied = true
	return a.awaitHealth(ctx)
}

// reasonDrift is that of the events.
const reasonDrift = "Drift"

// maxListed bounds how many failures a condition lists.
const maxListed = 10

func failuresText(failures []*apply.Failure) string {
	var lines []string
	for _, f := range failures[:min(len(failures), maxListed)] {
		line := subject(f.ID) + ": " + f.Problem
		if f.Remedy != "" {
			line += "; " + f.Remedy
		}
		lines = append(lines, line)
	}
	if more := len(failures) - maxListed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// reportPass tells what was changed in the cluster, and what others had
// changed.
func (a *attempt) reportPass(pass *apply.Pass) {
	if text := changeLog(pass); text != "" {
		a.event(eventv1.EventSeverityInfo, text, nil)
	}
	for _, c := range pass.Changes {
		if c.Drift != nil {
			a.reportDrift(c.Drift)
		}
	}
	for _, f := range pass.Fights {
		a.reportFight(f)
	}
}

// reportFight says once that somebody else keeps changing an object.
func (a *attempt) reportFight(f apply.Fight) {
	if a.job.fights[f.ID] == f.Manager {
		return
	}
	if a.job.fights == nil {
		a.job.fights = map[apply.ID]string{}
	}
	a.job.fights[f.ID] = f.Manager
	by := "somebody"
	if f.Manager != "" {
		by = f.Manager
	}
	a.note(eventv1.EventSeverityError, reasonDrift, fmt.Sprintf("%s keeps changing %s, which was set back %d times; it is set back less often now. "+
		"Take the fields out of Git, or list them in spec.ignore of the Kustomization", by, subject(f.ID), f.Undone))
}

// reportDrift says who changed what, and that it is as in Git again.
func (a *attempt) reportDrift(d *apply.Drift) {
	by := ""
	if d.Manager != "" {
		by = " by " + d.Manager
	}
	what := ""
	if len(d.Fields) > 0 {
		what = ": " + strings.Join(d.Fields, ", ")
	}
	a.note(eventv1.EventSeverityInfo, reasonDrift, fmt.Sprintf("%s was %s%s%s; undone after %s", subject(d.ID), d.Action, by, what, d.UndoneAfter.Round(time.Millisecond)))
}

// awaitHealth says how far the objects are that the object waits for.
func (a *attempt) awaitHealth(ctx context.Context) verdict {
	if !a.obj.Spec.Wait && len(a.obj.Spec.HealthChecks) == 0 {
		conditions.Delete(a.obj, meta.HealthyCondition)
		return verdict{}
	}
	summary, err := a.job.engine.Health(ctx)
	if err != nil {
		return verdict{err: err}
	}
	if summary.Done() {
		a.becameHealthy()
		return verdict{}
	}
	if len(summary.Failed) > 0 {
		return a.unhealthy(failuresText(summary.Failed))
	}
	if a.job.health.IsZero() {
		a.job.health = a.now()
	}
	timeout := a.obj.GetTimeout()
	left := a.job.health.Add(timeout).Sub(a.now())
	if left <= 0 {
		return a.unhealthy(fmt.Sprintf("timeout waiting for: %s", failuresText(summary.Pending)))
	}
	if conditions.IsReady(a.obj) && !a.worked {
		// What was healthy is on its way to something, as after a restart of
		// pods. It is told if it does not arrive.
		return verdict{nothing: true, after: left}
	}
	message := healthMessage(a.revision, timeout)
	conditions.MarkUnknown(a.obj, meta.HealthyCondition, meta.ProgressingReason, "%s", message)
	return verdict{progress: message, after: left}
}

func healthMessage(revision string, timeout time.Duration) string {
	return fmt.Sprintf("Running health checks for revision %s with a timeout of %s", revision, timeout)
}

func (a *attempt) becameHealthy() {
	took := time.Duration(0)
	if !a.job.health.IsZero() {
		took = a.now().Sub(a.job.health)
	}
	a.job.health = time.Time{}
	if conditions.IsTrue(a.obj, meta.HealthyCondition) {
		return
	}
	message := fmt.Sprintf("Health check passed in %s", took.Round(time.Millisecond))
	conditions.MarkTrue(a.obj, meta.HealthyCondition, meta.SucceededReason, "%s", message)
	a.event(eventv1.EventSeverityInfo, message, nil)
}

// unhealthy fails the object. It says nothing that is not the same the next
// time, so that an object which stays unhealthy is not written again.
func (a *attempt) unhealthy(detail string) verdict {
	message := fmt.Sprintf("health check failed: %s", detail)
	conditions.MarkFalse(a.obj, meta.HealthyCondition, meta.HealthCheckFailedReason, "%s", message)
	return verdict{problem: &problem{reason: meta.HealthCheckFailedReason, message: message}}
}

// digestOf identifies built objects, in whatever order.
func digestOf(objects []*unstructured.Unstructured) string {
	sums := make([]string, 0, len(objects))
	for _, u := range objects {
		body, err := u.MarshalJSON()
		if err != nil {
			continue // it cannot be applied either, which is reported
		}
		sum := sha256.Sum256(body)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	slices.Sort(sums)
	sum := sha256.Sum256([]byte(strings.Join(sums, "\n")))
	return "sha256:" + hex.EncodeToString(sum[:])
}
