package flux_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestKustomizationIsAppliedFollowedAndDeleted(t *testing.T) {
	s := start(t)
	files := map[string]string{"a/cm.yaml": configMap("one", "1") + "---\n" + configMap("two", "1"), "b/cm.yaml": configMap("three", "1")}
	s.publish("main@sha1:1", files)
	s.Take()
	s.create(kustomization("a"))
	k := s.isReady("a", "main@sha1:1")
	s.holds("one", "1")
	if writes := s.Writes("/kustomizations/a/status"); len(writes) > 2 {
		t.Errorf("a new object costs %d writes of its status, want 2: %v", len(writes), writes)
	}
	if got := len(k.Status.Inventory.Entries); got != 2 {
		t.Errorf("inventory has %d entries, want 2: %v", got, k.Status.Inventory.Entries)
	}
	if !slices.Contains(k.Finalizers, kustomizev1.KustomizationFinalizer) {
		t.Error("the object has no finalizer")
	}
	labels := s.Get("/api/v1/namespaces/default/configmaps/one")["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels["kustomize.toolkit.fluxcd.io/name"] != "a" || labels["kustomize.toolkit.fluxcd.io/namespace"] != "apps" {
		t.Errorf("Flux's labels are missing: %v", labels)
	}

	// A commit that changes something else moves the revision and sends nothing.
	s.Take()
	s.publish("main@sha1:2", with(files, "b/cm.yaml", configMap("three", "2")))
	s.isReady("a", "main@sha1:2")
	requests := s.Take()
	if i := slices.IndexFunc(requests, func(r string) bool { return strings.Contains(r, "/configmaps/") }); i >= 0 {
		t.Errorf("an unaffected object was looked at: %s", requests[i])
	}

	// A commit that changes it.
	changed := map[string]string{"a/cm.yaml": configMap("one", "3"), "b/cm.yaml": configMap("three", "2")}
	s.publish("main@sha1:3", changed)
	k = s.isReady("a", "main@sha1:3")
	s.holds("one", "3")
	s.holds("two", "(none)")
	if got := len(k.Status.Inventory.Entries); got != 1 {
		t.Errorf("inventory has %d entries, want 1", got)
	}

	// Deleting it deletes its objects.
	if err := s.client.Delete(context.Background(), k); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() error {
		err := s.client.Get(context.Background(), client.ObjectKeyFromObject(k), &kustomizev1.Kustomization{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the object is still there: %w", err)
		}
		return nil
	})
	s.holds("one", "(none)")
}

func TestDriftIsUndoneAndReported(t *testing.T) {
	s := start(t)
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "1")})
	s.create(kustomization("a"))
	s.isReady("a", "main@sha1:1")
	s.Apply("/api/v1/namespaces/default/configmaps/one", "mallory", map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "one", "namespace": "default"}, "data": map[string]any{"key": "evil"},
	})
	s.holds("one", "1")
	s.eventually(func() error {
		if !slices.ContainsFunc(s.events.lines(), func(e string) bool { return strings.Contains(e, "Drift") && strings.Contains(e, "mallory") }) {
			return fmt.Errorf("nobody was told")
		}
		return nil
	})
}

func TestBuildFailureIsToldAndRepaired(t *testing.T) {
	s := start(t)
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": "kind: ["})
	s.create(kustomization("a"))
	if message := s.isNot("a", meta.BuildFailedReason); !strings.Contains(message, "a/cm.yaml") {
		t.Errorf("the message does not name the file: %s", message)
	}
	s.publish("main@sha1:2", map[string]string{"a/cm.yaml": configMap("one", "2")})
	s.isReady("a", "main@sha1:2")
}

func TestDependenciesComeFirst(t *testing.T) {
	s := start(t)
	s.create(kustomization("late", func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "early"}}
	}))
	files := map[string]string{"early/cm.yaml": configMap("early", "1"), "late/cm.yaml": configMap("late", "1")}
	s.publish("main@sha1:1", files)
	s.isNot("late", meta.DependencyNotReadyReason)
	if s.valueOf("late") != "(none)" {
		t.Error("applied before its dependency")
	}
	s.create(kustomization("early"))
	s.isReady("late", "main@sha1:1")

	// When both change, or only the later one.
	files = map[string]string{"early/cm.yaml": configMap("early", "2"), "late/cm.yaml": configMap("late", "2")}
	s.publish("main@sha1:2", files)
	s.isReady("late", "main@sha1:2")
	s.publish("main@sha1:3", with(files, "late/cm.yaml", configMap("late", "3")))
	s.isReady("late", "main@sha1:3")
	s.isReady("early", "main@sha1:3")
	s.holds("late", "3")
	// When only the earlier one changes, the later one follows.
	s.publish("main@sha1:4", map[string]string{"early/cm.yaml": configMap("early", "4"), "late/cm.yaml": configMap("late", "3")})
	s.isReady("late", "main@sha1:4")
}

func TestNewRevisionTakesThePlaceOfAWaitingOne(t *testing.T) {
	s := start(t)
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec: {replicas: 1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: \"i:%d\"}]}}}\n"
	s.SetReady("web", false)
	s.publish("main@sha1:1", map[string]string{"a/d.yaml": fmt.Sprintf(deployment, 1)})
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) {
		k.Spec.Wait, k.Spec.Timeout = true, &metav1.Duration{Duration: time.Hour}
	}))
	s.isNot("a", meta.ProgressingReason)
	s.publish("main@sha1:2", map[string]string{"a/cm.yaml": configMap("one", "2")})
	s.isNot("a", meta.PruneFailedReason) // the only object left, which a guard refuses
	s.edit("a", func(k *kustomizev1.Kustomization) { k.Annotations = map[string]string{"bothy.dev/allow-prune": "true"} })
	s.isReady("a", "main@sha1:2")
}

func TestHealthIsAwaitedWithoutPolling(t *testing.T) {
	s := start(t)
	s.SetReady("web", false)
	s.publish("main@sha1:1", map[string]string{"a/d.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec: {replicas: 1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n"})
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true }))
	s.isNot("a", meta.ProgressingReason)
	s.SetReady("web", true)
	s.isReady("a", "main@sha1:1")
}

func TestSuspendedIsLeftAlone(t *testing.T) {
	s := start(t)
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "1")})
	s.create(kustomization("a"))
	s.isReady("a", "main@sha1:1")
	s.edit("a", func(k *kustomizev1.Kustomization) { k.Spec.Suspend = true })
	// The watch that brings this one has brought the suspension before.
	s.create(kustomization("b", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./a"; k.Spec.NamePrefix = "b-" }))
	s.isReady("b", "main@sha1:1")
	s.publish("main@sha1:2", map[string]string{"a/cm.yaml": configMap("one", "2")})
	s.isReady("b", "main@sha1:2")
	if got := s.valueOf("one"); got != "1" {
		t.Errorf("a suspended object was applied: %s", got)
	}
	s.edit("a", func(k *kustomizev1.Kustomization) { k.Spec.Suspend = false })
	s.isReady("a", "main@sha1:2")
	s.holds("one", "2")
}

func TestRequestedReconcileIsHandled(t *testing.T) {
	s := start(t)
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "1")})
	s.create(kustomization("a"))
	s.isReady("a", "main@sha1:1")
	s.edit("a", func(k *kustomizev1.Kustomization) {
		k.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
	})
	s.eventually(func() error {
		if got := s.get("a").Status.LastHandledReconcileAt; got != "now" {
			return fmt.Errorf("lastHandledReconcileAt is %q", got)
		}
		return nil
	})
	s.isReady("a", "main@sha1:1")
}

func TestSubstitutionFollowsWatchedObjects(t *testing.T) {
	s := start(t)
	put := func(value string) {
		s.Put("/api/v1/namespaces/apps/configmaps/vars", map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "vars", "namespace": "apps", "labels": map[string]any{meta.LabelKeyWatch: meta.LabelValueWatchEnabled}},
			"data":     map[string]any{"VALUE": value},
		})
	}
	put("first")
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "${VALUE}-${OWN:=own}")})
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) {
		k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "ConfigMap", Name: "vars"}, {Kind: "Secret", Name: "none", Optional: true}}}
	}))
	s.isReady("a", "main@sha1:1")
	s.holds("one", "first-own")
	put("second")
	s.holds("one", "second-own")
}

func TestUnsupportedIsSaid(t *testing.T) {
	s := start(t)
	s.create(kustomization("bucket", func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Kind = "Bucket" }))
	s.create(kustomization("none", func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Name = "nobody" }))
	s.create(kustomization("cel", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthCheckExprs = append(k.Spec.HealthCheckExprs, badExpression())
	}))
	if m := s.isNot("bucket", meta.ArtifactFailedReason); !strings.Contains(m, "Bucket") {
		t.Error(m)
	}
	if m := s.isNot("none", meta.ArtifactFailedReason); !strings.Contains(m, "not found") {
		t.Error(m)
	}
	s.isNot("cel", meta.InvalidCELExpressionReason)
}

func TestRestartChangesNothing(t *testing.T) {
	s := start(t)
	files := map[string]string{"a/cm.yaml": configMap("one", "1"), "b/cm.yaml": configMap("two", "1")}
	s.publish("main@sha1:1", files)
	s.create(kustomization("a"))
	s.create(kustomization("b"))
	s.isReady("a", "main@sha1:1")
	s.isReady("b", "main@sha1:1")
	s.stop()
	// While it is away an object leaves Git.
	s.publish("main@sha1:2", map[string]string{"a/cm.yaml": configMap("one", "1"), "b/x.yaml": configMap("two", "1") + "---\n" + configMap("four", "1")})
	s.Take()
	s.config.Hub = newHub(s)
	s.run()
	s.isReady("a", "main@sha1:2")
	s.isReady("b", "main@sha1:2")
	s.holds("four", "1")
	s.holds("one", "1")
}

func TestIntervalCostsNothing(t *testing.T) {
	s := start(t)
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "1")})
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) { k.Spec.Interval.Duration = 20 * time.Millisecond }))
	s.isReady("a", "main@sha1:1")
	s.Take()
	// Something that takes longer than many intervals.
	s.create(kustomization("b", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./a"; k.Spec.NamePrefix = "b-" }))
	s.isReady("b", "main@sha1:1")
	<-time.After(200 * time.Millisecond) // ten intervals
	for _, request := range s.Take() {
		if strings.Contains(request, "/kustomizations/a") || strings.Contains(request, "/configmaps/one") {
			t.Errorf("an interval costs a request: %s", request)
		}
	}
}

func TestOneChangeAmongManyComesFirst(t *testing.T) {
	const many = 100
	s := start(t)
	files := map[string]string{}
	for i := range many {
		files[fmt.Sprintf("k%d/cm.yaml", i)] = configMap(fmt.Sprintf("cm%d", i), "1")
	}
	s.publish("main@sha1:1", files)
	for i := range many {
		s.create(kustomization(fmt.Sprintf("k%d", i)))
	}
	for i := range many {
		s.isReady(fmt.Sprintf("k%d", i), "main@sha1:1")
	}
	s.Take()
	s.publish("main@sha1:2", with(files, "k42/cm.yaml", configMap("cm42", "2")))
	for i := range many {
		s.isReady(fmt.Sprintf("k%d", i), "main@sha1:2")
	}
	var writes []string
	for _, request := range s.Take() {
		if strings.HasPrefix(request, "PATCH ") {
			writes = append(writes, request)
		}
	}
	// The workers may each have begun with another one.
	applied := slices.IndexFunc(writes, func(r string) bool { return strings.HasSuffix(r, "/configmaps/cm42") })
	if applied < 0 || applied > 12 {
		t.Errorf("the changed object was sent as number %d: %v", applied, writes[:min(len(writes), 10)])
	}
	if want := many + 1; len(writes) != want {
		t.Errorf("%d writes, want %d: one object and a status each", len(writes), want)
	}
}
