package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/runtime/statusreaders"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// State is how far an object has come, as kstatus or an expression sees it.
type State string

// The states of an object.
const (
	// Current: the cluster has done what the object asks for.
	Current State = "current"
	// InProgress: it is still at it.
	InProgress State = "in progress"
	// Broken: it says that it cannot.
	Broken State = "failed"
	// Unknown: not looked at yet, or gone.
	Unknown State = "unknown"
)

type health struct {
	State   State
	Message string
}

// healthOf judges a live object.
func (r *rules) healthOf(live *unstructured.Unstructured) health {
	if live.GetDeletionTimestamp() != nil {
		return health{State: InProgress, Message: "is being deleted"}
	}
	result, err := r.status(live)
	if err != nil {
		return health{State: InProgress, Message: err.Error()}
	}
	switch result.Status {
	case status.CurrentStatus:
		return health{State: Current}
	case status.FailedStatus:
		return health{State: Broken, Message: saying(result.Message, "says that it has failed")}
	}
	return health{State: InProgress, Message: saying(result.Message, "is not ready yet")}
}

func (r *rules) status(live *unstructured.Unstructured) (*status.Result, error) {
	gk := live.GroupVersionKind().GroupKind()
	if evaluator := r.health[gk]; evaluator != nil {
		result, err := evaluator.Evaluate(context.Background(), live)
		if err != nil {
			return nil, fmt.Errorf("health check expression: %w", err)
		}
		return result, nil
	}
	if gk == (schema.GroupKind{Group: "batch", Kind: "Job"}) {
		result := statusreaders.ComputeJobStatus(live) // done, not merely started
		return &result, nil
	}
	return status.Compute(live)
}

func saying(message, otherwise string) string {
	if message == "" {
		return otherwise
	}
	return message
}

// Summary is the health of the objects that count: of the whole set with
// Options.Wait, and of Options.Extra.
type Summary struct {
	Total, Ready int
	// Failed are objects that were refused or say that they are broken, Pending
	// those on their way; each with the reason.
	Failed, Pending []*Failure
}

// Done reports whether every object is current.
func (s Summary) Done() bool { return s.Ready == s.Total }

// Health looks at the objects that changed since the last look, and summarises.
// It requests nothing if none did. Without a hub it looks at all objects that
// were not current.
func (e *Engine) Health(ctx context.Context) (Summary, error) {
	e.attend()
	if err := e.resolveExtra(ctx); err != nil {
		return Summary{}, err
	}
	err := each(ctx, e.unlooked(), e.look)
	return e.summary(), err
}

// unlooked lists the objects that have to be read to know their health.
func (e *Engine) unlooked() []*object {
	e.mu.Lock()
	defer e.mu.Unlock()
	var todo []*object
	needs := func(o *object) bool {
		if o.res == nil || o.failure != nil || !e.counts(o) {
			return false
		}
		return o.moved || o.tracked == nil && o.health.State != Current
	}
	if e.o.Wait {
		for _, o := range e.order {
			if o.known.uid != "" && o.noticed == nil && !e.trivial(o) && needs(o) {
				todo = append(todo, o)
			}
		}
	}
	for _, id := range e.o.Extra {
		if o := e.lookFor(id); o != nil && needs(o) && !(o.foreign && e.o.Wait && e.objects[id.key()] != nil) {
			if !o.foreign && (e.o.Wait || o.known.uid == "") {
				continue // seen to above, or not sent yet
			}
			todo = append(todo, o)
		}
	}
	return todo
}

// lookFor finds an object of the set or one of the further ones; mu is held.
func (e *Engine) lookFor(id ID) *object {
	if o := e.objects[id.key()]; o != nil {
		return o
	}
	return e.extra[id.key()]
}

func (e *Engine) summary() Summary {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s Summary
	for _, o := range e.order {
		if e.o.Wait && e.counts(o) || o.failure != nil {
			s.add(o)
		}
	}
	for _, id := range e.o.Extra {
		o := e.lookFor(id)
		if o != nil && (o.foreign || !e.o.Wait && o.failure == nil) {
			s.add(o)
		}
	}
	return s
}

func (s *Summary) add(o *object) {
	s.Total++
	switch {
	case o.failure != nil:
		s.Failed = append(s.Failed, o.failure)
	case o.health.State == Current:
		s.Ready++
	case o.health.State == Broken:
		s.Failed = append(s.Failed, &Failure{ID: o.id, Problem: o.health.Message})
	default:
		s.Pending = append(s.Pending, &Failure{ID: o.id, Problem: saying(o.health.Message, "was not applied yet")})
	}
}

// look reads the live object and takes note of its health.
func (e *Engine) look(ctx context.Context, o *object) error {
	e.mu.Lock()
	o.inFlight, o.early = true, nil
	e.mu.Unlock()
	live, err := e.client.get(ctx, o.res, o.id.Namespace, o.id.Name, whole)
	e.mu.Lock()
	wake := false
	o.inFlight = false
	if err = e.looked(o, live, err, ctx.Err()); err == nil && o.early != nil {
		wake = e.judge(o, *o.early)
	}
	o.early = nil
	e.mu.Unlock()
	if wake {
		e.wake()
	}
	return err
}

// looked takes note of what a look found; mu is held.
func (e *Engine) looked(o *object, live *unstructured.Unstructured, err, ended error) error {
	switch {
	case err == nil:
		e.seen(o, live)
		return nil
	case ended != nil:
		return ended
	case errors.Is(unavailable(err), ErrUnavailable):
		return unavailable(err)
	}
	o.moved = false
	switch {
	case apierrors.IsNotFound(err) && o.foreign:
		o.known, o.health = known{}, health{State: InProgress, Message: "does not exist"}
	case apierrors.IsNotFound(err):
		// Somebody deleted it: the next pass sends it again.
		o.noticed = &notice{at: time.Now(), gone: true}
		o.health = health{State: InProgress, Message: "was deleted by somebody else"}
	default:
		o.health = health{State: Unknown, Message: err.Error()}
	}
	return nil
}

// seen takes note of a live object; mu is held. Drift that it shows is left to
// the hub, or to Refresh.
func (e *Engine) seen(o *object, live *unstructured.Unstructured) {
	o.health = e.rules.healthOf(live)
	if o.foreign {
		o.known = known{uid: live.GetUID(), version: live.GetResourceVersion()}
		o.moved = false
		return
	}
	mark, usurped := traceOf(live.GetUID(), live.GetLabels(), live.GetManagedFields())
	o.moved = false
	if mark == o.known.mark && usurped == o.known.usurped && !older(live.GetResourceVersion(), o.known.version) {
		o.known.version = live.GetResourceVersion()
	}
}
