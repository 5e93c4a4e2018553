package apply

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Action is what a pass did with an object.
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Deleted    Action = "deleted"
	Skipped    Action = "skipped"
)

// Change is what a pass did with one object that it did something with. Drift is
// set if the object was sent because somebody else had changed it.
type Change struct {
	ID     ID     `json:"object"`
	Action Action `json:"action"`
	Drift  *Drift `json:"drift,omitempty"`
}

// errReplacing says that the object is being deleted and not gone yet.
var errReplacing = errors.New("is being deleted in order to be created anew")

// send sends one object and takes note of the answer. An error is ErrUnavailable
// or ctx's; what the server says about the object is in o.failure.
func (e *Engine) send(ctx context.Context, o *object, pass *Pass) error {
	e.mu.Lock()
	o.inFlight, o.early = true, nil
	e.mu.Unlock()
	answer, err := e.put(ctx, o)
	e.mu.Lock()
	wake := false
	o.inFlight = false
	if err = e.settle(o, answer, err, ctx.Err(), pass); err == nil && o.early != nil {
		wake = e.judge(o, *o.early)
	}
	o.early = nil
	e.mu.Unlock()
	if wake {
		e.wake()
	}
	return err
}

// answer is what the server has after a request.
type answer struct {
	live    *unstructured.Unstructured
	created bool
	kept    bool // nothing was sent: an object that is only created is there
}

// put sends one object.
func (e *Engine) put(ctx context.Context, o *object) (answer, error) {
	if o.res == nil {
		return answer{}, errNoKind
	}
	if o.policy.ifNotPresent {
		live, err := e.client.get(ctx, o.res, o.id.Namespace, o.id.Name, whole)
		if !apierrors.IsNotFound(err) {
			return answer{live: live, kept: true}, err
		}
	}
	body, err := e.bodyOf(ctx, o)
	if err != nil {
		return answer{}, err
	}
	a, err := e.patch(ctx, o, body)
	if isImmutable(err) && o.policy.force {
		a, err = e.putAnew(ctx, o)
	}
	if err != nil {
		return answer{}, err
	}
	return e.takeOver(ctx, o, body, a)
}

func (e *Engine) patch(ctx context.Context, o *object, body []byte) (answer, error) {
	p := patching{kind: types.ApplyPatchType}
	if e.trivial(o) && len(o.ignored) == 0 {
		p.detail = metadataOnly // in particular, secrets need not come back
	}
	live, created, err := e.client.patch(ctx, o.res, o.id.Namespace, o.id.Name, body, p)
	return answer{live: live, created: created}, err
}

// putAnew deletes the object and creates it again. If that takes time, because
// of finalizers, it is done when the hub says that the object is gone.
func (e *Engine) putAnew(ctx context.Context, o *object) (answer, error) {
	objects := e.client.links.Load().metadata.Resource(o.res.GroupVersionResource).Namespace(o.id.Namespace)
	err := objects.Delete(ctx, o.id.Name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)})
	if err != nil && !apierrors.IsNotFound(err) {
		return answer{}, err
	}
	e.log.Info("object deleted in order to be created anew: an immutable field changed in Git", "object", o.id.String())
	a, err := e.patch(ctx, o, o.body)
	if isImmutable(err) || apierrors.IsConflict(err) {
		return answer{}, errReplacing
	}
	return a, err
}

// settle takes note of the answer to what was sent; mu is held.
func (e *Engine) settle(o *object, a answer, err, ended error, pass *Pass) error {
	switch {
	case err == nil:
		e.settled(o, a, pass)
		return nil
	case ended != nil:
		return ended
	case errors.Is(unavailable(err), ErrUnavailable):
		return unavailable(err)
	case errors.Is(err, errReplacing):
		o.failure, o.replacing = nil, true
		o.known, o.noticed = known{}, nil
		o.health = health{State: InProgress, Message: err.Error()}
		return nil
	}
	if kindGone(err) {
		e.client.kinds.forget(o.id.gvk())
		o.res, err = nil, errNoKind
	}
	if errors.Is(err, errNoKind) {
		o.failure = failureOfKind(o.id)
		return nil
	}
	o.failure = failureOf(o.id, err)
	return nil
}

// kindGone reports whether an answer says that not an object or a namespace but
// the whole resource is unknown.
func kindGone(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return false
	}
	details := status.Status().Details
	return details == nil || details.Kind == "" || details.Name == ""
}

// settled takes note of what the cluster has now; mu is held.
func (e *Engine) settled(o *object, a answer, pass *Pass) {
	change := Change{ID: o.id, Action: Configured}
	switch {
	case a.kept:
		change.Action = Skipped
	case a.created:
		change.Action = Created
	case o.known.version == a.live.GetResourceVersion():
		change.Action = Unchanged
	}
	entries := a.live.GetManagedFields()
	if o.noticed != nil && !a.kept {
		change.Drift = e.undone(o, a, entries)
	}
	o.failure, o.noticed, o.replacing, o.moved = nil, nil, false, false
	o.applied = o.digest
	o.known = known{uid: a.live.GetUID(), version: a.live.GetResourceVersion()}
	o.known.mark, o.known.usurped = traceOf(o.known.uid, a.live.GetLabels(), entries)
	o.keepOwned(entries)
	e.remember(o)
	o.health = health{State: Current}
	if !e.trivial(o) {
		o.health = e.rules.healthOf(a.live)
	}
	pass.Changes = append(pass.Changes, change)
}

// undone reports drift that was just set back; mu is held.
func (e *Engine) undone(o *object, a answer, after []metav1.ManagedFieldsEntry) *Drift {
	d := o.noticed.describe(o.id, a.created, o.applied == o.digest, after)
	f := o.undo(d, time.Now())
	e.drifts.add(*d)
	if f.undone == fightAfter {
		e.log.Warn("object is changed by somebody else again and again; it is set back less often from now on: take the fields out of Git, or stop the other",
			"object", o.id.String(), "manager", f.manager, "fields", d.Fields)
	}
	return d
}
