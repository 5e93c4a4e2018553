package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Pass is what one pass over all objects did.
type Pass struct {
	// Sent counts the objects that were sent, Failures those refused.
	Sent     int
	Failures []*Failure
	// Changes lists the objects that the pass did something with. Objects that
	// are known to be as they should be are not mentioned.
	Changes []Change
	// Pruned lists the objects deleted, Kept those that left Git but are
	// annotated to stay or are not ours any more.
	Pruned, Kept []ID
	// Guard says why nothing was pruned although objects left Git.
	Guard *Failure
	// Fights lists the objects that somebody else keeps changing; they are set
	// back later.
	Fights []Fight
	// Replacing lists the objects that are being deleted in order to be created
	// anew.
	Replacing []ID
}

// Sync brings the cluster to the wanted set: objects that are not known to be
// there are sent stage by stage, then what left the set is deleted. It sends
// nothing if there is nothing to do. An error (ErrUnavailable, ctx's) means that
// the pass is not complete and can be made again; what is wrong with single
// objects is in the Pass.
func (e *Engine) Sync(ctx context.Context) (*Pass, error) {
	e.attend()
	pass := &Pass{}
	if err := e.resolve(ctx); err != nil {
		return nil, err
	}
	if err := e.extendRecord(ctx); err != nil {
		return nil, err
	}
	for stage := range int8(stages) {
		if err := e.syncStage(ctx, stage, pass); err != nil {
			return nil, err
		}
	}
	e.review(pass)
	if len(pass.Failures) > 0 || len(pass.Replacing) > 0 {
		return pass, nil // prune never follows an error
	}
	return pass, e.prune(ctx, pass)
}

// review collects what the pass leaves undone.
func (e *Engine) review(pass *Pass) {
	now := time.Now()
	var next time.Duration
	e.mu.Lock()
	for _, o := range e.order {
		switch {
		case o.failure != nil:
			pass.Failures = append(pass.Failures, o.failure)
		case o.replacing:
			pass.Replacing = append(pass.Replacing, o.id)
		case o.resting(now):
			pass.Fights = append(pass.Fights, Fight{ID: o.id, Manager: o.fight.manager, Undone: o.fight.undone, Next: o.fight.notBefore})
			if wait := o.fight.notBefore.Sub(now); next == 0 || wait < next {
				next = wait
			}
		}
	}
	watched := e.o.Hub != nil
	e.mu.Unlock()
	if next > 0 {
		e.later(next)
	}
	if len(pass.Replacing) > 0 && !watched {
		e.later(replaceRetry)
	}
}

// replaceRetry is when to look after objects that are being deleted, if nobody
// tells.
const replaceRetry = 2 * time.Second

// resolve finds where the objects live whose kind is known to the server, and
// has the hub watch them. Kinds whose definition is among the objects are found
// after that is sent.
func (e *Engine) resolve(ctx context.Context) error {
	var unknown map[ID]bool
	moved := false
	for _, o := range e.order {
		if o.res == nil && !unknown[kindOf(o.id)] {
			r, err := e.client.kinds.resource(ctx, o.id.gvk())
			switch {
			case errors.Is(err, errNoKind):
				if unknown == nil {
					unknown = map[ID]bool{}
				}
				unknown[kindOf(o.id)] = true
			case err != nil:
				return err
			default:
				o.place(r)
				moved = moved || o.misplaced
			}
		}
		if o.res != nil {
			e.track(o)
		}
	}
	if moved {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.index()
	}
	return nil
}

func kindOf(id ID) ID { return ID{Group: id.Group, Version: id.Version, Kind: id.Kind} }

// syncStage sends the objects of a stage that are not settled.
func (e *Engine) syncStage(ctx context.Context, stage int8, pass *Pass) error {
	todo := e.unsettled(stage, pass)
	if len(todo) == 0 {
		return nil
	}
	if err := e.awaitLists(ctx, todo); err != nil {
		return err
	}
	// The lists may have shown that an object is to be left alone.
	todo = slices.DeleteFunc(todo, func(o *object) bool { return e.isSettled(o) })
	pass.Sent += len(todo)
	if err := each(ctx, todo, func(ctx context.Context, o *object) error { return e.send(ctx, o, pass) }); err != nil {
		return err
	}
	if stage != stageDefinitions {
		return nil
	}
	if err := e.awaitDefinitions(ctx, todo); err != nil {
		return err
	}
	// The new kinds say now whether they are namespaced.
	return e.resolve(ctx)
}

func (e *Engine) unsettled(stage int8, pass *Pass) []*object {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	var todo []*object
	for _, o := range e.order {
		switch {
		case o.stage != stage, o.resting(now):
		case o.settled():
			if (o.left || o.policy.skip) && o.skipped != o.digest {
				o.skipped = o.digest
				pass.Changes = append(pass.Changes, Change{ID: o.id, Action: Skipped})
			}
		default:
			todo = append(todo, o)
		}
	}
	return todo
}

func (e *Engine) isSettled(o *object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return o.settled()
}

// awaitLists waits until the hub has seen what is there of the kinds: what the
// objects in the cluster say about themselves counts.
func (e *Engine) awaitLists(ctx context.Context, todo []*object) error {
	if e.o.Hub == nil {
		return nil
	}
	var last *resource
	for _, o := range todo {
		if o.res == nil || o.res == last {
			continue
		}
		last = o.res
		if err := e.o.Hub.await(ctx, o.res); err != nil {
			return err
		}
	}
	return nil
}

// establishTimeout bounds the wait for a definition to be served.
const establishTimeout = 10 * time.Second

// awaitDefinitions waits until the API server serves the kinds just defined.
func (e *Engine) awaitDefinitions(ctx context.Context, sent []*object) error {
	var waiting []*object
	for _, o := range sent {
		if isDefinition(o.id) && o.failure == nil {
			waiting = append(waiting, o)
		}
	}
	deadline := time.Now().Add(establishTimeout)
	for {
		waiting = slices.DeleteFunc(waiting, e.isCurrent)
		if len(waiting) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			break
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		if err := each(ctx, waiting, e.look); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range waiting {
		o.failure = &Failure{ID: o.id, Problem: fmt.Sprintf("is not established after %s: %s", establishTimeout, o.health.Message), Remedy: "see kubectl describe crd " + o.id.Name}
	}
	return nil
}

func (e *Engine) isCurrent(o *object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return o.health.State == Current
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
