package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

const (
	// pageSize of the first list of a watch.
	pageSize = 500
	// A watch ends by itself after watchFor to twice that.
	watchFor = 5 * time.Minute
	// The wait after an error; the longer one if the server does not serve the
	// resource or does not let us watch it.
	watchRetryMin   = 50 * time.Millisecond
	watchRetryMax   = 2 * time.Second
	watchRefusedMax = 30 * time.Second
)

// watch follows one target. Its fields are guarded by Hub.mu, but for those that
// do not change.
type watch struct {
	hub    *Hub
	res    *resource
	target target
	kind   ID // group and kind of its objects
	// retry ends a wait before the next attempt.
	retry chan struct{}

	entries map[types.NamespacedName]*entry
	users   int
	cancel  context.CancelFunc
	// synced: a list was complete. tried is closed when the first attempt has
	// ended; failure is its error if the API server does not answer.
	synced  bool
	tried   chan struct{}
	failure error
}

// entry is one object that is there, or that engines ask for.
type entry struct {
	known   known // zero if it is not there
	left    bool
	engines []*Engine
}

// forget says that the object is not there, and reports whether nobody asks for
// it either.
func (e *entry) forget() (unused bool) {
	e.known, e.left = known{}, false
	return len(e.engines) == 0
}

func newWatch(h *Hub, r *resource, t target, id ID) *watch {
	return &watch{
		hub: h, res: r, target: t, kind: ID{Group: id.Group, Kind: id.Kind},
		retry: make(chan struct{}, 1), tried: make(chan struct{}),
		entries: map[types.NamespacedName]*entry{},
	}
}

func (w *watch) entry(name types.NamespacedName) *entry {
	found := w.entries[name]
	if found == nil {
		found = &entry{}
		w.entries[name] = found
	}
	return found
}

// remove ends an engine's interest in an object, and reports whether it had any.
func (w *watch) remove(name types.NamespacedName, e *Engine) bool {
	found := w.entries[name]
	if found == nil {
		return false
	}
	i := slices.Index(found.engines, e)
	if i < 0 {
		return false
	}
	found.engines = slices.Delete(found.engines, i, i+1)
	if len(found.engines) == 0 && found.known.uid == "" {
		delete(w.entries, name)
	}
	return true
}

// again makes the watch try again at once if it waits after an error.
func (w *watch) again() {
	select {
	case w.retry <- struct{}{}:
	default:
	}
}

// run lists and watches until ctx ends.
func (w *watch) run(ctx context.Context) {
	version, wait := "", watchRetryMin
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if version == "" {
			version, err = w.list(ctx)
			w.finishAttempt(err)
		}
		if err == nil {
			version, err = w.follow(ctx, version)
		}
		if time.Since(began) > watchRetryMax {
			wait = watchRetryMin
		}
		if err == nil && time.Since(began) > time.Second {
			continue // the server ends watches from time to time
		}
		limit := watchRetryMax
		if err != nil && !errors.Is(unavailable(err), ErrUnavailable) {
			w.hub.log.Debug("watch", "resource", w.target.Resource, "error", err)
			limit = watchRefusedMax
		}
		w.pause(ctx, wait)
		wait = min(2*wait, limit)
	}
}

func (w *watch) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.retry:
	case <-ctx.Done():
	}
}

// finishAttempt tells those who wait for the first list how it went.
func (w *watch) finishAttempt(err error) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.failure = nil
	if err = unavailable(err); errors.Is(err, ErrUnavailable) {
		w.failure = err
	}
	w.synced = w.synced || err == nil
	close(w.tried)
	w.tried = make(chan struct{})
}

func (w *watch) options() metav1.ListOptions {
	if w.target.Name != "" {
		return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", w.target.Name).String()}
	}
	return metav1.ListOptions{LabelSelector: InventoryLabel}
}

// list reads what is there, tells what changed since the last time, and returns
// the version to watch from.
func (w *watch) list(ctx context.Context) (string, error) {
	options := w.options()
	options.Limit = pageSize
	there := map[types.NamespacedName]bool{}
	for {
		page, err := w.listPage(ctx, options)
		if apierrors.IsNotFound(err) {
			w.removeOthers(there, "") // the kind is gone, and its objects with it
		}
		if err != nil {
			return "", fmt.Errorf("list %s: %w", w.target.Resource, err)
		}
		for i := range page.Items {
			meta := &page.Items[i]
			there[types.NamespacedName{Namespace: meta.Namespace, Name: meta.Name}] = true
			w.see(meta, sightingOf(meta))
		}
		if options.Continue = page.Continue; options.Continue == "" {
			w.removeOthers(there, page.ResourceVersion)
			return page.ResourceVersion, nil
		}
	}
}

func (w *watch) listPage(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return w.hub.client.links.Load().metadata.Resource(w.target.GroupVersionResource).Namespace(w.target.Namespace).List(ctx, options)
}

// follow passes events on until the watch ends, and returns the version to go on
// from; it is empty if only a new list helps.
func (w *watch) follow(ctx context.Context, version string) (string, error) {
	options := w.options()
	options.ResourceVersion, options.AllowWatchBookmarks = version, true
	options.TimeoutSeconds = new(int64((watchFor + rand.N(watchFor)) / time.Second))
	stream, err := w.hub.client.links.Load().metadata.Resource(w.target.GroupVersionResource).Namespace(w.target.Namespace).Watch(ctx, options)
	if err != nil {
		return resumeFrom(version, err), fmt.Errorf("watch %s: %w", w.target.Resource, err)
	}
	defer stream.Stop()
	for event := range stream.ResultChan() {
		if event.Type == apiwatch.Error {
			err := apierrors.FromObject(event.Object)
			return resumeFrom(version, err), fmt.Errorf("watch %s: %w", w.target.Resource, err)
		}
		meta, ok := event.Object.(*metav1.PartialObjectMetadata)
		if !ok {
			return "", fmt.Errorf("watch %s: unexpected %T", w.target.Resource, event.Object)
		}
		version = meta.ResourceVersion
		if event.Type == apiwatch.Bookmark {
			continue
		}
		s := sightingOf(meta)
		s.gone = event.Type == apiwatch.Deleted
		w.see(meta, s)
	}
	return version, nil
}

// resumeFrom is version if the error leaves hope that it can be watched from.
func resumeFrom(version string, err error) string {
	if errors.Is(unavailable(err), ErrUnavailable) {
		return version
	}
	return ""
}

// see takes note of an object and tells those who asked for it.
func (w *watch) see(meta *metav1.PartialObjectMetadata, s sighting) {
	name := types.NamespacedName{Namespace: meta.Namespace, Name: meta.Name}
	w.hub.mu.Lock()
	found := w.entry(name)
	if !s.gone && found.known == s.known {
		w.hub.mu.Unlock()
		return // a list anew
	}
	found.known, found.left = s.known, s.left
	if s.gone && found.forget() {
		delete(w.entries, name)
	}
	engines := slices.Clone(found.engines)
	w.hub.mu.Unlock()
	w.tell(engines, name, s)
}

// removeOthers takes for gone what a list at the given version did not have.
func (w *watch) removeOthers(there map[types.NamespacedName]bool, version string) {
	gone := map[types.NamespacedName][]*Engine{}
	w.hub.mu.Lock()
	for name, found := range w.entries {
		if there[name] {
			continue
		}
		gone[name] = slices.Clone(found.engines)
		if found.forget() {
			delete(w.entries, name)
		}
	}
	w.hub.mu.Unlock()
	for name, engines := range gone {
		w.tell(engines, name, sighting{known: known{version: version}, gone: true})
	}
}

func (w *watch) tell(engines []*Engine, name types.NamespacedName, s sighting) {
	key := w.kind
	key.Namespace, key.Name = name.Namespace, name.Name
	for _, e := range engines {
		e.observe(key, s)
	}
}

// older reports whether version a is certainly before b.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}
