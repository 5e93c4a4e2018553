package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// observer watches the objects of a kind in a namespace and notes the moment at
// which they are as expected. It is the same clock for both sides.
type observer struct {
	store cache.Store

	mu       sync.Mutex
	expected map[*expectation]bool
	last     time.Time
}

// predicate says whether an object is as expected.
type predicate func(*unstructured.Unstructured) bool

// expectation is that several objects will be as expected.
type expectation struct {
	ok      predicate
	pending map[string]bool
	at      map[string]time.Time
	done    chan struct{}
}

func observe(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, namespace string) (*observer, error) {
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	informer := factory.ForResource(resource).Informer()
	o := &observer{store: informer.GetStore(), expected: map[*expectation]bool{}}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    o.changed,
		UpdateFunc: func(_, object any) { o.changed(object) },
		DeleteFunc: func(any) { o.changed(nil) },
	})
	if err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("list %s in %s: %w", resource.Resource, namespace, context.Cause(ctx))
	}
	return o, nil
}

func (o *observer) changed(object any) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	for e := range o.expected {
		e.look(u, now)
	}
}

func (e *expectation) look(u *unstructured.Unstructured, now time.Time) {
	name := u.GetName()
	if !e.pending[name] || !e.ok(u) {
		return
	}
	delete(e.pending, name)
	e.at[name] = now
	if len(e.pending) == 0 {
		close(e.done)
	}
}

// expect begins to look for the objects; what is as expected already counts.
func (o *observer) expect(names []string, ok predicate) *expectation {
	e := &expectation{ok: ok, pending: map[string]bool{}, at: map[string]time.Time{}, done: make(chan struct{})}
	for _, name := range names {
		e.pending[name] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for _, object := range o.store.List() {
		e.look(object.(*unstructured.Unstructured), now)
	}
	o.expected[e] = true
	return e
}

func (o *observer) forget(e *expectation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.expected, e)
}

// wait returns when each of the objects was as expected.
func (o *observer) wait(ctx context.Context, e *expectation, most time.Duration) (map[string]time.Time, error) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	defer o.forget(e)
	select {
	case <-e.done:
		return e.at, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range e.pending {
		return nil, fmt.Errorf("waited %s in vain for %d objects, among them %s", most, len(e.pending), name)
	}
	return e.at, nil
}

// quiet waits until nothing has changed for a while.
func (o *observer) quiet(ctx context.Context, while time.Duration) error {
	for {
		o.mu.Lock()
		since := time.Since(o.last)
		o.mu.Unlock()
		if since >= while {
			return nil
		}
		if err := wait(ctx, while-since); err != nil {
			return err
		}
	}
}

// get is the object as last seen.
func (o *observer) get(name string) (*unstructured.Unstructured, bool) {
	for _, object := range o.store.List() {
		if u := object.(*unstructured.Unstructured); u.GetName() == name {
			return u, true
		}
	}
	return nil, false
}
