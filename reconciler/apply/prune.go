package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AllowPruneTrailer in a commit message allows a commit to delete more than
// half of the inventory, or everything.
const AllowPruneTrailer = "Bothy-Allow-Prune"

// readRecord reads the inventory if it is not known.
func (e *Engine) readRecord(ctx context.Context) error {
	if e.record != nil {
		return nil
	}
	r, err := e.o.Store.Load(ctx)
	if err != nil {
		return err
	}
	e.record = &r
	return nil
}

// Inventory lists what is recorded as sent. It is empty before the first Sync.
func (e *Engine) Inventory() []ID {
	if e.record == nil {
		return nil
	}
	return slices.Clone(e.record.Objects)
}

func (e *Engine) saveRecord(ctx context.Context, next Record) error {
	next.sort()
	if err := e.o.Store.Save(ctx, next); err != nil {
		e.record = nil // somebody else may have written it: read it again
		return err
	}
	e.record = &next
	return nil
}

// extendRecord adds the wanted objects to the inventory before any is sent. It
// writes nothing if there is no new one.
func (e *Engine) extendRecord(ctx context.Context) error {
	if e.recorded {
		return nil
	}
	if err := e.readRecord(ctx); err != nil {
		return err
	}
	next := Record{Commit: e.record.Commit, Size: e.record.Size, Objects: slices.Clone(e.record.Objects), Added: slices.Clone(e.record.Added)}
	have := make(map[ID]int, len(next.Objects))
	for i, id := range next.Objects {
		have[id.key()] = i
	}
	changed := false
	for _, o := range e.order {
		i, ok := have[o.id.key()]
		switch {
		case !ok:
			next.Objects = append(next.Objects, o.id)
			next.Added = append(next.Added, o.id)
			changed = true
		case next.Objects[i].Version != o.id.Version:
			next.Objects[i].Version = o.id.Version
			changed = true
		}
	}
	if changed {
		if err := e.saveRecord(ctx, next); err != nil {
			return err
		}
	}
	// Objects of kinds that are not served yet may be placed elsewhere later.
	e.recorded = !slices.ContainsFunc(e.order, func(o *object) bool { return o.res == nil })
	return nil
}

// prune deletes what is in the inventory but no longer wanted, and records that
// the commit is applied whole. It is called only when every object was applied.
func (e *Engine) prune(ctx context.Context, pass *Pass) error {
	if e.pruned {
		return nil
	}
	if err := e.extendRecord(ctx); err != nil { // kinds may have been found meanwhile
		return err
	}
	stale := e.stale()
	if pass.Guard = e.guard(*e.record, stale); pass.Guard != nil {
		return nil //nolint:nilerr // a refusal is a result, told in pass.Guard
	}
	next := Record{Commit: e.commit, Size: len(e.order)}
	for _, o := range e.order {
		next.Objects = append(next.Objects, o.id)
	}
	undeleted, err := e.removeAll(ctx, stale, pass)
	if err != nil {
		return err // the inventory still lists everything
	}
	next.Objects = append(next.Objects, undeleted...)
	if len(stale) > 0 || e.record.Commit != e.commit || e.record.Size != next.Size {
		if err := e.saveRecord(ctx, next); err != nil {
			return err
		}
	}
	e.pruned = len(undeleted) == 0
	return nil
}

// stale lists what left the set, in the reverse of the order of creation.
func (e *Engine) stale() []ID {
	var stale []ID
	e.mu.Lock()
	for _, id := range e.record.Objects {
		if e.objects[id.key()] == nil {
			stale = append(stale, id)
		}
	}
	e.mu.Unlock()
	sortForDeletion(stale)
	return stale
}

func sortForDeletion(ids []ID) {
	slices.SortStableFunc(ids, func(a, b ID) int { return stageOf(b.gvk()) - stageOf(a.gvk()) })
}

// removeAll deletes objects and returns those that could not be.
func (e *Engine) removeAll(ctx context.Context, stale []ID, pass *Pass) (undeleted []ID, err error) {
	if !e.o.Prune {
		return nil, nil
	}
	for _, id := range stale {
		outcome, _, err := e.remove(ctx, id)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrUnavailable):
			return nil, err
		case err != nil:
			pass.Failures = append(pass.Failures, &Failure{ID: id, Problem: "left Git but cannot be deleted: " + err.Error()})
			undeleted = append(undeleted, id)
		case outcome == removalKept:
			pass.Kept = append(pass.Kept, id)
			pass.Changes = append(pass.Changes, Change{ID: id, Action: Skipped})
		case outcome == removalDone:
			pass.Pruned = append(pass.Pruned, id)
			pass.Changes = append(pass.Changes, Change{ID: id, Action: Deleted})
		}
	}
	return undeleted, nil
}

// settled counts the objects that were there when a commit was last applied
// whole.
func (r *Record) settled(ids []ID) int {
	added := make(map[ID]bool, len(r.Added))
	for _, id := range r.Added {
		added[id.key()] = true
	}
	n := 0
	for _, id := range ids {
		if !added[id.key()] {
			n++
		}
	}
	return n
}

// guard refuses to delete more than half of what the last whole apply had, or
// everything, unless a commit since says so.
func (e *Engine) guard(r Record, stale []ID) *Failure {
	if !e.o.Guard || !e.o.Prune || len(stale) == 0 {
		return nil
	}
	lost := r.settled(stale)
	wanted, had := len(e.order), r.Size
	if wanted > 0 && (lost*2 <= had || had == 0) {
		return nil
	}
	if e.allowPrune != nil && e.allowPrune(r.Commit) {
		return nil
	}
	problem := fmt.Sprintf("the commit would delete %d of %d objects", lost, max(had, lost))
	if wanted == 0 {
		problem = fmt.Sprintf("the commit describes no objects and would delete all %d", len(stale))
	}
	return &Failure{
		Problem: problem + ", so nothing is deleted",
		Remedy:  fmt.Sprintf("if that is meant, push a signed commit with the line \"%s: true\" at the end of its message (git commit --allow-empty -S)", AllowPruneTrailer),
	}
}

// removal is how the removal of an object went.
type removal int

const (
	removalGone    removal = iota // it was not there any more
	removalDone                   // it was deleted
	removalPending                // it is being deleted already
	removalKept                   // it is to stay
)

// remove deletes an object if it still is the engine's. waits reports that it
// may still be there for a while, because of finalizers or a grace period.
func (e *Engine) remove(ctx context.Context, id ID) (outcome removal, waits bool, err error) {
	r, err := e.client.kinds.anyVersion(ctx, id.gvk())
	if errors.Is(err, errNoKind) {
		return removalGone, false, nil // its definition is gone, and the object with it
	}
	if err != nil {
		return removalGone, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	objects := e.client.links.Load().metadata.Resource(r.GroupVersionResource).Namespace(id.Namespace)
	live, err := objects.Get(ctx, id.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return removalGone, false, nil
	case err != nil:
		return removalGone, false, unavailable(err)
	case !e.o.owns(live.Labels):
		e.log.Info("object left Git but is not ours any more, kept", "object", id.String())
		return removalKept, false, nil
	case isToStay(live.Annotations):
		return removalKept, false, nil
	case live.DeletionTimestamp != nil:
		return removalPending, true, nil
	}
	err = objects.Delete(ctx, id.Name, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationBackground),
		Preconditions:     &metav1.Preconditions{UID: &live.UID},
	})
	if apierrors.IsNotFound(err) {
		return removalGone, false, nil
	}
	return removalDone, true, unavailable(err)
}

func isToStay(annotations map[string]string) bool {
	return annotations[PruneAnnotation] == disabled || annotations[FluxPruneAnnotation] == disabled || annotations[ReconcileAnnotation] == disabled
}
