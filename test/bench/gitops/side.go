package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// The names of the two sides.
const (
	ours = "bothy"
	flux = "flux"
)

var (
	kustomizations  = schema.GroupVersionResource{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Resource: "kustomizations"}
	gitRepositories = schema.GroupVersionResource{Group: "source.toolkit.fluxcd.io", Version: "v1", Resource: "gitrepositories"}
	configMaps      = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// shardLabel is Flux's convention for objects of one of several controllers.
// Ours leave objects with it alone, and Flux's are told to see no others.
const (
	shardLabel = "sharding.fluxcd.io/key"
	shard      = "peer"
)

// side is one of the two that reconcile: the same objects of the same API, made
// and measured in the same way.
type side struct {
	name   string
	client dynamic.Interface
	labels map[string]any
	source string // GitRepository in flux-system
	// pids are its processes, with a name for each.
	pids func() (map[int]string, error)

	generation      int
	kustomizations  *observer
	configs         *observer
	stopObserving   context.CancelFunc
	size            int
	target, objects string // namespaces
}

// create makes n Kustomizations in namespaces of their own and returns when the
// last request was answered.
func (s *side) create(ctx context.Context, n int, interval time.Duration) error {
	s.generation++
	s.size = n
	s.objects = fmt.Sprintf("%s-%d", s.name, s.generation)
	s.target = s.objects + "-apps"
	for _, name := range []string{s.objects, s.target} {
		ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
		if _, err := s.client.Resource(namespaces).Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	observing, stop := context.WithCancel(ctx)
	s.stopObserving = stop
	var err error
	if s.kustomizations, err = observe(observing, s.client, kustomizations, s.objects); err != nil {
		return err
	}
	if s.configs, err = observe(observing, s.client, configMaps, s.target); err != nil {
		return err
	}
	return forAll(n, func(i int) error {
		_, err := s.client.Resource(kustomizations).Namespace(s.objects).Create(ctx, s.kustomization(i, interval), metav1.CreateOptions{})
		return err
	})
}

func (s *side) kustomization(i int, interval time.Duration) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": appName(i), "namespace": s.objects, "labels": s.labels},
		"spec": map[string]any{
			"interval": interval.String(), "timeout": "5m", "prune": true, "wait": false,
			"path": "./apps/" + appName(i), "targetNamespace": s.target,
			"sourceRef": map[string]any{"kind": "GitRepository", "name": s.source, "namespace": "flux-system"},
		},
	}}
}

// remove takes the Kustomizations and what they made away, as fast as it goes:
// a suspended Kustomization leaves its objects to the namespace's deletion.
func (s *side) remove(ctx context.Context) error {
	if s.objects == "" {
		return nil
	}
	s.stopObserving()
	api := s.client.Resource(kustomizations).Namespace(s.objects)
	if err := forAll(s.size, func(i int) error {
		_, err := api.Patch(ctx, appName(i), types.MergePatchType, []byte(`{"spec": {"suspend": true}}`), metav1.PatchOptions{})
		return err
	}); err != nil {
		return err
	}
	for _, namespace := range []string{s.objects, s.target} {
		if err := s.client.Resource(namespaces).Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	for _, namespace := range []string{s.objects, s.target} {
		if err := poll(ctx, 5*time.Minute, "namespace "+namespace+" to be gone", func() error {
			_, err := s.client.Resource(namespaces).Get(ctx, namespace, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("it is still there"), err)
		}); err != nil {
			return err
		}
	}
	s.objects, s.size = "", 0
	return nil
}

// poke says that the repository has something new, as `flux reconcile source`
// and a webhook receiver do.
func (s *side) poke(ctx context.Context) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		"reconcile.fluxcd.io/requestedAt": time.Now().Format(time.RFC3339Nano),
	}}})
	if err != nil {
		return err
	}
	_, err = s.client.Resource(gitRepositories).Namespace("flux-system").Patch(ctx, s.source, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("ask for a fetch of %s: %w", s.source, err)
	}
	return nil
}

// names are those of all its Kustomizations, and of the ConfigMap of each.
func (s *side) names() []string {
	out := make([]string, s.size)
	for i := range out {
		out[i] = appName(i)
	}
	return out
}

// settled waits until all Kustomizations are at a revision, or nothing has
// happened for a while: the other side is then measured on a quiet machine.
func (s *side) settled(ctx context.Context, revision string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	e := s.kustomizations.expect(s.names(), readyAt(revision))
	defer s.kustomizations.forget(e)
	quiet, done := context.WithCancel(ctx)
	defer done()
	go func() {
		select {
		case <-e.done:
			done()
		case <-quiet.Done():
		}
	}()
	if err := s.kustomizations.quiet(quiet, 10*time.Second); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// readyAt says whether a Kustomization has applied a revision and is Ready.
func readyAt(revision string) predicate {
	return func(u *unstructured.Unstructured) bool {
		if observed, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); observed != u.GetGeneration() {
			return false
		}
		if applied, _, _ := unstructured.NestedString(u.Object, "status", "lastAppliedRevision"); applied != revision {
			return false
		}
		return ready(u)
	}
}

func ready(u *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Ready" {
			return m["status"] == "True"
		}
	}
	return false
}

// shows says whether a ConfigMap has a value.
func shows(value string) predicate {
	return func(u *unstructured.Unstructured) bool {
		got, _, _ := unstructured.NestedString(u.Object, "data", "value")
		return got == value
	}
}

// forAll calls f for 0 to n-1, several at a time.
func forAll(n int, f func(int) error) error {
	const workers = 8
	free := make(chan struct{}, workers)
	return together(n, func(i int) error {
		free <- struct{}{}
		defer func() { <-free }()
		return f(i)
	})
}

// together calls f for 0 to n-1 all at once.
func together(n int, f func(int) error) error {
	failed := make(chan error, n)
	for i := range n {
		go func() { failed <- f(i) }()
	}
	var err error
	for range n {
		err = errors.Join(err, <-failed)
	}
	return err
}

func poll(ctx context.Context, most time.Duration, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
