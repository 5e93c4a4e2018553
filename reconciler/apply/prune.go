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

// prune deletes what is in the inventory but no longer wanted, and records that
// the commit is applied whole. It is called only when every object was applied.
func (e *Engine) prune(ctx context.Context, pass *Pass) error {
	var stale []ID
	for _, id := range e.inventory.Objects {
		if e.objects[id.key()] == nil {
			stale = append(stale, id)
		}
	}
	if pass.Guard = e.guard(len(stale)); pass.Guard != nil {
		return nil //nolint:nilerr // a refusal is a result, told in pass.Guard
	}
	next := &inventory{Commit: e.commit, Size: len(e.objects)}
	for _, o := range e.objects {
		next.Objects = append(next.Objects, o.id)
	}
	// The reverse of the order of creation.
	slices.SortStableFunc(stale, func(a, b ID) int { return stageOf(b.gvk()) - stageOf(a.gvk()) })
	for _, id := range stale {
		done, kept, err := e.remove(ctx, id)
		switch {
		case errors.Is(err, ErrUnavailable), ctx.Err() != nil:
			return err // the inventory still lists everything
		case err != nil:
			pass.Failures = append(pass.Failures, &Failure{ID: id, Problem: "left Git but cannot be deleted: " + err.Error()})
			next.Objects = append(next.Objects, id)
		case kept:
			pass.Kept = append(pass.Kept, id)
		case done:
			pass.Pruned = append(pass.Pruned, id)
		}
	}
	if len(stale) == 0 && e.inventory.Commit == e.commit && e.inventory.Size == next.Size {
		return nil
	}
	return e.writeInventory(ctx, next)
}

// guard refuses to delete more than half of what the last whole apply had, or
// everything, unless a commit since says so.
func (e *Engine) guard(stale int) *Failure {
	if stale == 0 || (len(e.objects) > 0 && stale*2 <= e.inventory.Size) || e.inventory.Size == 0 && len(e.objects) > 0 {
		return nil
	}
	if e.allowPrune != nil && e.allowPrune(e.inventory.Commit) {
		return nil
	}
	problem := fmt.Sprintf("the commit would delete %d of %d objects", stale, max(e.inventory.Size, stale))
	if len(e.objects) == 0 {
		problem = fmt.Sprintf("the commit describes no objects and would delete all %d", stale)
	}
	return &Failure{
		Problem: problem + ", so nothing is deleted",
		Remedy:  fmt.Sprintf("if that is meant, push a signed commit with the line \"%s: true\" at the end of its message (git commit --allow-empty -S)", AllowPruneTrailer),
	}
}

// remove deletes an object if it still carries our label.
func (e *Engine) remove(ctx context.Context, id ID) (done, kept bool, err error) {
	r, err := e.client.anyVersionOf(ctx, id.gvk())
	if errors.Is(err, errNoKind) {
		return false, false, nil // its definition is gone, and the object with it
	}
	if err != nil {
		return false, false, err
	}
	objects := e.client.metadata.Resource(r.GroupVersionResource).Namespace(id.Namespace)
	live, err := objects.Get(ctx, id.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, false, nil
	case err != nil:
		return false, false, unavailable(err)
	case live.Labels[InventoryLabel] != e.name:
		e.log.Info("object left Git but is not ours any more, kept", "object", id.String())
		return false, true, nil
	case live.Annotations[PruneAnnotation] == "disabled":
		return false, true, nil
	case live.DeletionTimestamp != nil:
		return false, false, nil
	}
	err = objects.Delete(ctx, id.Name, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationBackground),
		Preconditions:     &metav1.Preconditions{UID: &live.UID},
	})
	if apierrors.IsNotFound(err) {
		return false, false, nil
	}
	return err == nil, false, unavailable(err)
}
