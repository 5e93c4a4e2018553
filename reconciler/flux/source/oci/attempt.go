package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/reconciler/build/ignore"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// attempt is one reconcile of one object.
type attempt struct {
	*reconciler
	job *job
	obj *sourcev1.OCIRepository
	// before has the status last written.
	before *sourcev1.OCIRepository
	key    source.Key
}

const (
	// defaultTimeout is Flux's.
	defaultTimeout = time.Minute

	// A failed look is tried again after this time, doubled each time.
	retryMin = 5 * time.Second
	retryMax = 2 * time.Minute
)

// run brings the artifact up to date and writes the status.
func (a *attempt) run(ctx context.Context) (ctrl.Result, error) {
	a.restore(ctx)
	if a.obj.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	if wait := a.due(); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	started := a.now()
	p := a.check()
	if p == nil {
		p = a.update(ctx)
	}
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // told to end, which is no failure
	}
	a.job.looked = a.now()
	return a.report(ctx, p, started)
}

// due returns how long there is nothing to do; 0 to do it now.
func (a *attempt) due() time.Duration {
	at, asked := meta.ReconcileAnnotationValue(a.obj.GetAnnotations())
	if a.job.looked.IsZero() || a.obj.Generation != a.obj.Status.ObservedGeneration || asked && at != a.obj.Status.LastHandledReconcileAt {
		return 0
	}
	interval := a.pause()
	// The interval has jitter; one that ends a little early is over.
	if left := interval - a.now().Sub(a.job.looked); left > interval/10 {
		return left
	}
	return 0
}

// pause is the time between looks.
func (a *attempt) pause() time.Duration {
	interval := a.obj.Spec.Interval.Duration
	if a.job.failures > 0 {
		return min(interval, retryMin<<min(a.job.failures-1, 6), retryMax)
	}
	return interval
}

// check finds what is wrong with the object itself.
func (a *attempt) check() *problem {
	if p := a.obj.Spec.Provider; p != "" && p != sourcev1.GenericOCIProvider {
		return &problem{
			condition: sourcev1.FetchFailedCondition, reason: "Unsupported", stalled: true,
			message: fmt.Sprintf("spec.provider %s is not supported; put credentials of the registry into a Secret and name it in spec.secretRef", p),
		}
	}
	if _, err := a.repository(); err != nil {
		return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.URLInvalidReason, stalled: true, message: err.Error()}
	}
	return nil
}

// fields identifies what of the object decides about the content of an artifact
// besides the revision.
func (a *attempt) fields() string {
	spec := &a.obj.Spec
	data, err := json.Marshal([]any{spec.URL, spec.Ignore, spec.LayerSelector})
	if err != nil {
		return err.Error() // strings are always encoded
	}
	return string(data)
}

// update looks what the object means now and delivers it, unless it is
// delivered.
func (a *attempt) update(ctx context.Context) *problem {
	timeout := defaultTimeout
	if a.obj.Spec.Timeout != nil {
		timeout = a.obj.Spec.Timeout.Duration
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	believed, err := a.policy(ctx)
	if err != nil {
		return unverified(err)
	}
	registry, err := a.access(ctx)
	if err != nil {
		return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.AuthenticationFailedReason, message: err.Error()}
	}
	defer registry.close()
	wanted, err := a.resolve(ctx, registry)
	if err != nil {
		return pullFailed(err)
	}
	if a.delivered(wanted, believed) {
		return nil
	}
	s := &saved{Revision: wanted.revision(), Fields: a.fields()}
	if believed != nil {
		verified, err := cosign.Verify(ctx, cosign.Remote(registry.repository, registry.options...), wanted.digest, believed.Policy)
		switch {
		case refused(err):
			return unverified(err)
		case err != nil:
			return pullFailed(err)
		}
		s.Policy, s.Signer = believed.id, verified.Signer
	}
	layer, err := a.pull(ctx, registry, wanted.digest)
	if err != nil {
		return pullFailed(err)
	}
	s.Layer, s.MediaType, s.Annotations = layer.digest, layer.mediaType, layer.annotations
	if p := a.deliver(s, layer.content); p != nil {
		return p
	}
	if err := save(a.job.dir, s, layer.content); err != nil {
		// The artifact is delivered; only a restart will need the network.
		a.log.Warn("the content of an OCIRepository cannot be saved", "ocirepository", a.key.String(), "error", err)
	}
	return nil
}

// delivered reports whether the store has what the object means, believed by the
// same policy.
func (a *attempt) delivered(wanted target, believed *policy) bool {
	m := a.job.made
	id := ""
	if believed != nil {
		id = believed.id
	}
	if m == nil || m.revision != wanted.revision() || m.fields != a.fields() || m.policy != id {
		return false
	}
	a.show(m)
	return true
}

// restore puts the artifact of an earlier process into the store, from disk
// alone. A signature that was believed then counts if the policy is the same.
func (a *attempt) restore(ctx context.Context) {
	if a.job.restored || a.job.made != nil {
		return
	}
	a.job.restored = true
	s, layer, err := load(a.job.dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.log.Info("the saved content of an OCIRepository is not used", "ocirepository", a.key.String(), "reason", err.Error())
		}
		return
	}
	believed, err := a.policy(ctx)
	if err != nil || s.Fields != a.fields() || a.obj.Status.Artifact == nil || a.obj.Status.Artifact.Revision != s.Revision {
		return
	}
	if believed != nil && believed.id != s.Policy {
		return
	}
	if p := a.deliver(s, layer); p != nil {
		a.log.Info("the saved content of an OCIRepository is not used", "ocirepository", a.key.String(), "reason", p.message)
	}
}

// Annotations of a manifest that say where its content is from, as flux push
// artifact writes them.
const (
	originSource   = "org.opencontainers.image.source"
	originRevision = "org.opencontainers.image.revision"
)

// deliver puts the content of a layer into the store.
func (a *attempt) deliver(s *saved, layer []byte) *problem {
	content, err := open(layer, a.obj.GetLayerOperation())
	if err != nil {
		return &problem{
			condition: sourcev1.FetchFailedCondition, reason: sourcev1.OCILayerOperationFailedReason,
			message: fmt.Sprintf("layer %s of type %s: %s", s.Layer, s.MediaType, err),
		}
	}
	artifact := &source.Artifact{
		Revision: s.Revision, Digest: s.Layer, Size: int64(len(layer)), Files: content, At: a.now(),
		OriginRevision: s.Annotations[originRevision], Metadata: s.Annotations,
	}
	if a.obj.GetLayerOperation() == sourcev1.OCILayerExtract {
		patterns := ""
		if a.obj.Spec.Ignore != nil {
			patterns = *a.obj.Spec.Ignore
		}
		artifact.Files = ignore.New(content, patterns)
		artifact.Digest = digestOf([]byte(s.Layer + "\n" + patterns))
	}
	if stored := a.obj.Status.Artifact; stored != nil && stored.Revision == artifact.Revision && stored.Digest == artifact.Digest {
		artifact.At = stored.LastUpdateTime.Time
	}
	before := a.env.Store.Get(a.key)
	a.job.made = &made{revision: s.Revision, fields: s.Fields, policy: s.Policy, signer: s.Signer, artifact: artifact}
	a.show(a.job.made)
	if before == nil || before.Revision != artifact.Revision || before.Digest != artifact.Digest {
		a.env.Store.Set(a.key, artifact)
		a.announce(artifact)
	}
	return nil
}

// pullFailed is about the way to the content.
func pullFailed(err error) *problem {
	var known *problem
	if errors.As(err, &known) {
		return known
	}
	p := &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.OCIPullFailedReason, message: err.Error()}
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		p.reason = sourcev1.AuthenticationFailedReason
	}
	return p
}
