package apply

import (
	"context"
	"errors"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// State is how far an object has come, as kstatus sees it.
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
func healthOf(live *unstructured.Unstructured) health {
	result, err := status.Compute(live)
	if err != nil {
		return health{State: Unknown, Message: err.Error()}
	}
	switch result.Status {
	case status.CurrentStatus:
		return health{State: Current}
	case status.FailedStatus:
		return health{State: Broken, Message: result.Message}
	case status.TerminatingStatus:
		return health{State: InProgress, Message: "is being deleted"}
	}
	return health{State: InProgress, Message: result.Message}
}

// Summary is the health of the whole set.
type Summary struct {
	Total, Ready int
	// Failed are objects that were refused or say that they are broken, Pending
	// those on their way; each with the reason.
	Failed, Pending []*Failure
}

// Done reports whether every object is current.
func (s Summary) Done() bool { return s.Ready == s.Total }

// Health looks again at the objects that were not current and summarises.
func (e *Engine) Health(ctx context.Context) (Summary, error) {
	var todo []*object
	for _, o := range e.objects {
		if o.failure == nil && o.uid != "" && o.health.State != Current {
			todo = append(todo, o)
		}
	}
	err := each(ctx, todo, e.look)
	return e.summary(), err
}

func (e *Engine) summary() Summary {
	s := Summary{Total: len(e.objects)}
	for _, o := range e.sorted() {
		reason := &Failure{ID: o.id, Problem: o.health.Message}
		switch {
		case o.failure != nil:
			s.Failed = append(s.Failed, o.failure)
		case o.health.State == Current:
			s.Ready++
		case o.health.State == Broken:
			s.Failed = append(s.Failed, reason)
		default:
			s.Pending = append(s.Pending, reason)
		}
	}
	return s
}

// lookFailed judges an error of reading a live object.
func (e *Engine) lookFailed(ctx context.Context, o *object, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsNotFound(err), errors.Is(err, errNoKind):
		// Somebody deleted it: the next pass sends it again.
		o.uid, o.health = "", health{State: Unknown, Message: "is not in the cluster"}
		return nil
	}
	if err := unavailable(err); errors.Is(err, ErrUnavailable) {
		return err
	}
	o.health = health{State: Unknown, Message: err.Error()}
	return nil
}
