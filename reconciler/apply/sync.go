package apply

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Pass is what one pass over all objects did.
type Pass struct {
	// Sent counts the objects that were sent, Failures those refused.
	Sent     int
	Failures []*Failure
	// Pruned lists the objects deleted, Kept those that left Git but are
	// annotated to stay.
	Pruned, Kept []ID
	// Guard says why nothing was pruned although objects left Git.
	Guard *Failure
}

// Sync brings the cluster to the wanted set: objects that are not known to be
// there are sent stage by stage, then what left the set is deleted. An error
// (ErrUnavailable, ctx's) means that the pass is not complete and can be made
// again; what is wrong with single objects is in the Pass.
func (e *Engine) Sync(ctx context.Context) (*Pass, error) {
	pass := &Pass{}
	if err := e.resolve(ctx); err != nil {
		return nil, err
	}
	if err := e.readInventory(ctx); err != nil {
		return nil, err
	}
	if err := e.extendInventory(ctx); err != nil {
		return nil, err
	}
	for stage := range stages {
		if err := e.syncStage(ctx, stage, pass); err != nil {
			return nil, err
		}
	}
	pass.Failures = e.failures()
	if len(pass.Failures) > 0 {
		return pass, nil // prune never follows an error
	}
	return pass, e.prune(ctx, pass)
}

func (e *Engine) failures() []*Failure {
	var out []*Failure
	for _, o := range e.sorted() {
		if o.failure != nil {
			out = append(out, o.failure)
		}
	}
	return out
}

// sorted lists the objects in the order of stages and names.
func (e *Engine) sorted() []*object {
	out := make([]*object, 0, len(e.objects))
	for _, o := range e.objects {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *object) int {
		if a.stage != b.stage {
			return a.stage - b.stage
		}
		return slices.Compare([]string{a.id.sortKey()}, []string{b.id.sortKey()})
	})
	return out
}

func (e *Engine) syncStage(ctx context.Context, stage int, pass *Pass) error {
	var todo []*object
	for _, o := range e.sorted() {
		if o.stage == stage && !o.settled() {
			todo = append(todo, o)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	pass.Sent += len(todo)
	if err := each(ctx, todo, e.apply); err != nil {
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

// establishTimeout bounds the wait for a definition to be served.
const establishTimeout = 30 * time.Second

// awaitDefinitions waits until the API server serves the kinds just defined.
func (e *Engine) awaitDefinitions(ctx context.Context, sent []*object) error {
	var waiting []*object
	for _, o := range sent {
		if isDefinition(o.id) && o.failure == nil {
			waiting = append(waiting, o)
		}
	}
	deadline := time.Now().Add(establishTimeout)
	for len(waiting) > 0 {
		if err := each(ctx, waiting, e.look); err != nil {
			return err
		}
		waiting = slices.DeleteFunc(waiting, func(o *object) bool { return o.health.State == Current })
		if len(waiting) == 0 {
			break
		}
		if time.Now().After(deadline) {
			for _, o := range waiting {
				o.failure = &Failure{ID: o.id, Problem: fmt.Sprintf("is not established after %s: %s", establishTimeout, o.health.Message), Remedy: "see kubectl describe crd " + o.id.Name}
			}
			break
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// extendInventory adds the wanted objects to the inventory before any is sent.
func (e *Engine) extendInventory(ctx context.Context) error {
	next := &inventory{Commit: e.inventory.Commit, Size: e.inventory.Size, Objects: slices.Clone(e.inventory.Objects)}
	have := make(map[ID]int, len(next.Objects))
	for i, id := range next.Objects {
		have[id.key()] = i
	}
	changed := false
	for key, o := range e.objects {
		i, ok := have[key]
		switch {
		case !ok:
			next.Objects = append(next.Objects, o.id)
			changed = true
		case next.Objects[i].Version != o.id.Version:
			next.Objects[i].Version = o.id.Version
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return e.writeInventory(ctx, next)
}

// look reads the live object and takes note of its health.
func (e *Engine) look(ctx context.Context, o *object) error {
	r, err := e.client.resourceOf(ctx, o.id.gvk())
	if err == nil {
		var live *unstructured.Unstructured
		if live, err = e.client.of(r, o.id.Namespace).Get(ctx, o.id.Name, metav1.GetOptions{}); err == nil {
			o.observe(live)
			return nil
		}
	}
	return e.lookFailed(ctx, o, err)
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
