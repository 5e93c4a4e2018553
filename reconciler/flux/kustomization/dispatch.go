package kustomization

import (
	"context"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// The priorities of the queue. What a watch brings has 0, what the first list
// brings -100.
const (
	// priorityDrift is for objects in the cluster that changed.
	priorityDrift = 20
	// priorityChanged is for objects that a new artifact changes.
	priorityChanged = 10
	// priorityIdle is for everything that nobody waits for: intervals, and
	// objects of which only the revision moves on.
	priorityIdle = -200
)

// pending are sources with a new artifact, each once.
type pending struct {
	mu   sync.Mutex
	keys map[source.Key]bool
	more chan struct{}
}

func newPending() *pending {
	return &pending{keys: map[source.Key]bool{}, more: make(chan struct{}, 1)}
}

// add never blocks.
func (p *pending) add(key source.Key) {
	p.mu.Lock()
	p.keys[key] = true
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *pending) take() map[source.Key]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.keys
	p.keys = map[source.Key]bool{}
	return out
}

// dispatch tells objects of new artifacts, until ctx ends. Then it releases what
// the jobs hold.
func (r *reconciler) dispatch(ctx context.Context) error {
	r.env.Store.Subscribe(ctx, func(key source.Key) {
		if ctx.Err() == nil {
			r.pending.add(key)
		}
	})
	for {
		select {
		case <-ctx.Done():
			r.closeAll()
			return nil
		case <-r.pending.more:
		}
		for key := range r.pending.take() {
			r.deliver(ctx, key)
		}
	}
}

func (r *reconciler) closeAll() {
	for _, j := range r.jobs.all() {
		j.stop()
	}
}

// deliver sorts the objects of a source into those that its new artifact
// changes, which are reconciled at once, and the others, whose status follows.
func (r *reconciler) deliver(ctx context.Context, key source.Key) {
	var list kustomizev1.KustomizationList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexSource: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("list Kustomizations of a source", "source", key.String(), "error", err)
		return
	}
	artifact := r.env.Store.Get(key)
	var changed, same []types.NamespacedName
	for i := range list.Items {
		name := client.ObjectKeyFromObject(&list.Items[i])
		if artifact != nil && r.unaffected(name, &list.Items[i], artifact) {
			same = append(same, name)
			continue
		}
		changed = append(changed, name)
	}
	if artifact != nil {
		r.skipAhead(list.Items, same, artifact)
	}
	r.enqueue(priorityChanged, changed...)
	r.enqueue(priorityIdle, same...)
}

// unaffected reports whether an object is done and stays so with the artifact.
func (r *reconciler) unaffected(name types.NamespacedName, k *kustomizev1.Kustomization, artifact *source.Artifact) bool {
	j := r.jobs.find(name)
	if j == nil || j.uid != k.UID || k.Spec.Suspend {
		return false
	}
	p := j.look()
	return p.settled && p.status.ObservedGeneration == k.Generation && j.same(artifact.Files)
}

// skipAhead lets the jobs of unaffected objects have the new revision before
// their status says so, so that objects which depend on them and did change need
// not wait for that. An object follows the objects that it depends on.
func (r *reconciler) skipAhead(all []kustomizev1.Kustomization, same []types.NamespacedName, artifact *source.Artifact) {
	specs := make(map[types.NamespacedName]*kustomizev1.Kustomization, len(all))
	for i := range all {
		specs[client.ObjectKeyFromObject(&all[i])] = &all[i]
	}
	waiting := make(map[types.NamespacedName]bool, len(same))
	for _, name := range same {
		waiting[name] = true
	}
	for progress := true; progress; {
		progress = false
		for name := range waiting {
			if !r.aheadOf(specs[name], specs, artifact) {
				continue
			}
			if j := r.jobs.find(name); j != nil {
				j.skipTo(artifact)
			}
			delete(waiting, name)
			progress = true
		}
	}
}

// aheadOf reports whether all objects of the same source that k depends on have
// the revision. Those of other sources do not change with it.
func (r *reconciler) aheadOf(k *kustomizev1.Kustomization, specs map[types.NamespacedName]*kustomizev1.Kustomization, artifact *source.Artifact) bool {
	for _, name := range dependencies(k) {
		if specs[name] == nil {
			continue
		}
		if j := r.jobs.find(name); j == nil || !j.look().has(artifact) || !j.look().settled {
			return false
		}
	}
	return true
}
