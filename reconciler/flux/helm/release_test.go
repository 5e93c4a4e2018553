package helm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"helm.sh/helm/v4/pkg/release/common"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A release that is in order costs nothing but the answer to who asks.
func TestUnchangedCostsNothing(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.isReady("web")
	s.settle("web")

	version := s.release("web").Status.History.Latest().Version
	s.reconcile(&helmv2.HelmRelease{}, "web")
	s.handled("web")
	for _, request := range s.Take() {
		read := strings.HasPrefix(request, "WATCH ") || strings.HasSuffix(request, "/helmreleases/web")
		if !read && request != "PATCH /apis/helm.toolkit.fluxcd.io/v2/namespaces/default/helmreleases/web/status" {
			t.Errorf("request %s", request)
		}
	}
	if got := s.last("web").Version; got != version {
		t.Errorf("release v%d was made", got)
	}
	if n := repo.fetches("app-1.0.0.tgz"); n != 1 {
		t.Errorf("the chart was fetched %d times", n)
	}
}

// settle waits until nothing is asked of the API server any more: the watches
// tell of the last release a moment after it was made.
func (s *site) settle(name string) {
	s.Helper()
	for range 3 {
		s.reconcile(&helmv2.HelmRelease{}, name)
		s.handled(name)
	}
	s.Take()
}

// handled waits until a request was handled.
func (s *site) handled(name string) {
	s.Helper()
	s.eventually(func() error {
		r := s.release(name)
		if token := r.Annotations[meta.ReconcileRequestAnnotation]; r.Status.LastHandledReconcileAt != token {
			return fmt.Errorf("handled %q, asked %q", r.Status.LastHandledReconcileAt, token)
		}
		return nil
	})
}

// A failed install is uninstalled and tried again as often as it may be.
func TestInstallRemediation(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	s.SetReady("web-web", false)
	r := helmRelease("web", "*")
	r.Spec.Timeout = &metav1.Duration{Duration: 300 * time.Millisecond}
	r.Spec.Install = &helmv2.Install{Remediation: &helmv2.InstallRemediation{Retries: 1, RemediateLastFailure: new(true)}}
	s.create(helmRepository(repo), r)

	var got *helmv2.HelmRelease
	s.eventually(func() error {
		got = s.release("web")
		if !conditions.IsStalled(got) {
			return fmt.Errorf("not stalled: %v", got.Status.Conditions)
		}
		return nil
	})
	if c := conditions.Get(got, meta.StalledCondition); c.Reason != "RetriesExceeded" || c.Message != "Failed to install after 2 attempt(s)" {
		t.Errorf("Stalled: %+v", c)
	}
	if got.Status.InstallFailures != 2 || !conditions.IsTrue(got, helmv2.RemediatedCondition) {
		t.Errorf("failures %d, conditions %v", got.Status.InstallFailures, got.Status.Conditions)
	}
	if s.data("web") != nil {
		t.Error("the failed release is still there")
	}

	// A change makes it be tried again.
	s.SetReady("web-web", true)
	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.Values = values(`{"color":"green"}`) })
	s.isReady("web")
}

// A failed upgrade is rolled back to what worked.
func TestUpgradeRollback(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	r := helmRelease("web", "*")
	r.Spec.Timeout = &metav1.Duration{Duration: 500 * time.Millisecond}
	r.Spec.Upgrade = &helmv2.Upgrade{Remediation: &helmv2.UpgradeRemediation{Retries: 0, RemediateLastFailure: new(true)}}
	s.create(helmRepository(repo), r)
	s.isReady("web")

	s.SetReady("web-web", false)
	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.Values = values(`{"color":"bad"}`) })
	s.eventually(func() error {
		if n := s.events.count("UpgradeFailed"); n == 0 {
			return errors.New("the upgrade has not failed")
		}
		return nil
	})
	s.SetReady("web-web", true)
	s.eventually(func() error {
		got := s.release("web")
		c := conditions.Get(got, helmv2.RemediatedCondition)
		if c == nil || c.Reason != helmv2.RollbackSucceededReason {
			return fmt.Errorf("Remediated: %v", c)
		}
		return nil
	})
	if got := s.data("web")["color"]; got != "red" {
		t.Errorf("color %v", got)
	}
	if last := s.last("web"); last.Version != 3 || last.Info.RollbackRevision != 1 {
		t.Errorf("release v%d rolled back to %d", last.Version, last.Info.RollbackRevision)
	}
	s.eventually(func() error {
		if got := s.release("web"); !conditions.IsStalled(got) || conditions.IsReady(got) {
			return fmt.Errorf("conditions %v", got.Status.Conditions)
		}
		return nil
	})
}

// What a killed agent left pending is unlocked, and the upgrade is made.
func TestPendingReleaseIsRecovered(t *testing.T) {
	for _, status := range []common.Status{common.StatusPendingUpgrade, common.StatusPendingRollback, common.StatusUninstalling} {
		t.Run(status.String(), func(t *testing.T) {
			s, repo := start(t), newRepository(t)
			repo.publish(t, "1.0.0", nil)
			s.create(helmRepository(repo), helmRelease("web", "*"))
			s.isReady("web")
			s.stop()

			cut := s.last("web")
			cut.Version = 2
			cut.Info.Status = status
			if err := s.storage().Create(cut); err != nil {
				t.Fatal(err)
			}
			s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.Values = values(`{"color":"blue"}`) })
			s.run()
			s.isReady("web")
			if got := s.data("web")["color"]; got != "blue" {
				t.Errorf("color %v", got)
			}
			if got := s.last("web"); got.Info.Status != common.StatusDeployed {
				t.Errorf("v%d is %s", got.Version, got.Info.Status)
			}
		})
	}
}

// A release that somebody changed with helm is made ours again, at once.
func TestForeignReleaseIsTakenBack(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.isReady("web")
	s.settle("web")

	foreign := s.last("web")
	foreign.Info.Status = common.StatusSuperseded
	if err := s.storage().Update(foreign); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() error {
		if got := s.last("web"); got.Version != 2 || got.Info.Status != common.StatusDeployed {
			return fmt.Errorf("v%d is %s", got.Version, got.Info.Status)
		}
		return nil
	})
	s.isReady("web")
}

// Drift is undone when it happens, except where it is to be left alone.
func TestDrift(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	r := helmRelease("web", "*")
	r.Spec.DriftDetection = &helmv2.DriftDetection{Mode: helmv2.DriftDetectionEnabled, Ignore: []helmv2.IgnoreRule{{
		Paths: []string{"/spec/replicas"}, Target: &kustomize.Selector{Kind: "Deployment"},
	}}}
	s.create(helmRepository(repo), r)
	s.isReady("web")
	s.settle("web")

	config := "/api/v1/namespaces/default/configmaps/web"
	s.Server.Edit(config, "kubectl-edit", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, "purple", "data", "color")
	})
	s.eventually(func() error {
		if got := s.data("web")["color"]; got != "red" {
			return fmt.Errorf("color %v", got)
		}
		return nil
	})
	s.eventually(func() error {
		if s.events.count("ConfigMap/default/web changed (0 additions, 1 changes, 0 removals) by kubectl-edit") != 1 || s.events.count("ConfigMap/default/web configured") != 1 {
			return errors.New("no event says who did it and that it was undone")
		}
		return nil
	})
	s.Server.Delete(config)
	s.eventually(func() error {
		if s.data("web") == nil {
			return errors.New("the ConfigMap was not made again")
		}
		return nil
	})
	s.isReady("web")

	web := "/apis/apps/v1/namespaces/default/deployments/web-web"
	s.Server.Edit(web, "hpa", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, int64(5), "spec", "replicas")
	})
	s.Server.Edit(web, "kubectl-edit", func(u *unstructured.Unstructured) {
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		containers[0].(map[string]any)["image"] = "example.org/other"
		_ = unstructured.SetNestedSlice(u.Object, containers, "spec", "template", "spec", "containers")
	})
	s.eventually(func() error {
		o := s.Get(web)
		containers, _, _ := unstructured.NestedSlice(o, "spec", "template", "spec", "containers")
		if image := containers[0].(map[string]any)["image"]; image != "example.org/web:red" {
			return fmt.Errorf("image %v", image)
		}
		return nil
	})
	if n, _, _ := unstructured.NestedInt64(s.Get(web), "spec", "replicas"); n != 5 {
		t.Errorf("replicas %d: they were to be left alone", n)
	}
}

// Drift that is only to be reported is reported once, and left.
func TestDriftWarning(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	r := helmRelease("web", "*")
	r.Spec.DriftDetection = &helmv2.DriftDetection{Mode: helmv2.DriftDetectionWarn}
	s.create(helmRepository(repo), r)
	s.isReady("web")
	s.settle("web")
	s.Server.Edit("/api/v1/namespaces/default/configmaps/web", "kubectl-edit", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, "purple", "data", "color")
	})
	s.eventually(func() error {
		if got := s.release("web"); !conditions.IsTrue(got, helmv2.DriftedCondition) {
			return fmt.Errorf("Drifted: %v", conditions.Get(got, helmv2.DriftedCondition))
		}
		return nil
	})
	s.settle("web")
	if n := s.events.count("DriftDetected"); n != 1 {
		t.Errorf("reported %d times", n)
	}
	if got := s.data("web")["color"]; got != "purple" {
		t.Errorf("color %v", got)
	}
}

// Something newer ends the wait for something older, and is made.
func TestNewerEndsTheWait(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	s.SetReady("web-web", false)
	r := helmRelease("web", "*")
	r.Spec.Timeout = &metav1.Duration{Duration: time.Hour}
	s.create(helmRepository(repo), r)
	s.eventually(func() error {
		if s.Get("/apis/apps/v1/namespaces/default/deployments/web-web") == nil {
			return errors.New("the Deployment is not there yet")
		}
		return nil
	})
	s.edit("web", func(r *helmv2.HelmRelease) {
		r.Spec.Values = values(`{"color":"blue"}`)
		r.Spec.Install = &helmv2.Install{DisableWait: true}
		r.Spec.Upgrade = &helmv2.Upgrade{DisableWait: true}
	})
	got := s.isReady("web")
	if color := s.data("web")["color"]; color != "blue" {
		t.Errorf("color %v", color)
	}
	if got.Status.InstallFailures != 0 {
		t.Errorf("%d failures count", got.Status.InstallFailures)
	}
}

// A slow release does not hold up others, however many are slow.
func TestSlowReleasesHoldUpNobody(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	s.create(helmRepository(repo))
	for i := range 12 {
		name := fmt.Sprintf("slow-%d", i)
		s.SetReady(name+"-web", false)
		r := helmRelease(name, "*")
		r.Spec.Timeout = &metav1.Duration{Duration: time.Hour}
		s.create(r)
	}
	s.eventually(func() error {
		if n := len(s.pathsWith("/deployments/slow-")); n != 12 {
			return fmt.Errorf("%d of 12 are under way", n)
		}
		return nil
	})
	s.create(helmRelease("quick", "*"))
	s.isReady("quick")
}

// A release waits for those it depends on, and goes on when they are ready.
func TestDependsOn(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	second := helmRelease("second", "*")
	second.Spec.DependsOn = []helmv2.DependencyReference{{Name: "first", ReadyExpr: `dep.status.history.size() > 0 && self.metadata.name == "second"`}}
	s.create(helmRepository(repo), second)
	s.hasReason("second", metav1.ConditionFalse, helmv2.DependencyNotReadyReason)
	s.create(helmRelease("first", "*"))
	s.isReady("second")
}

// Values come from Secrets and ConfigMaps, in their order, with the release's own
// last; a change of one that is labelled so is noticed.
func TestValuesFrom(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	labelled := map[string]string{meta.LabelKeyWatch: meta.LabelValueWatchEnabled}
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "colors", Labels: labelled}, Data: map[string]string{"values.yaml": "color: green"},
	}
	r := helmRelease("web", "*")
	r.Spec.ValuesFrom = []helmv2.ValuesReference{{Kind: "ConfigMap", Name: "colors"}, {Kind: "Secret", Name: "none", Optional: true}}
	s.create(helmRepository(repo), config, r)
	s.isReady("web")
	if got := s.data("web")["color"]; got != "green" {
		t.Fatalf("color %v", got)
	}
	config.Data["values.yaml"] = "color: yellow"
	if err := s.client.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() error {
		if got := s.data("web")["color"]; got != "yellow" {
			return fmt.Errorf("color %v", got)
		}
		return nil
	})
}

// Force makes another release of the same; suspend makes none; another release
// name removes the release of the old one.
func TestRequests(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.isReady("web")
	s.reconcile(&helmv2.HelmRelease{}, "web", helmv2.ForceRequestAnnotation)
	s.handled("web")
	if got := s.last("web").Version; got != 2 {
		t.Errorf("v%d after a forced release", got)
	}
	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.ReleaseName = "other" })
	s.eventually(func() error {
		if s.data("other") == nil || s.data("web") != nil {
			return fmt.Errorf("web: %v, other: %v", s.data("web"), s.data("other"))
		}
		return nil
	})
	s.isReady("web")
}

// What a chart renders can be patched, labelled and given other images.
func TestPostRenderers(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{"templates/web.yaml": deployment})
	r := helmRelease("web", "*")
	r.Spec.CommonMetadata = &helmv2.CommonMetadata{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"}}
	r.Spec.PostRenderers = []helmv2.PostRenderer{{Kustomize: &helmv2.Kustomize{
		Patches: []kustomize.Patch{{Patch: `[{"op":"replace","path":"/data/color","value":"patched"}]`, Target: &kustomize.Selector{Kind: "ConfigMap"}}},
		Images:  []kustomize.Image{{Name: "example.org/web", NewName: "mirror.local/web", NewTag: "2"}},
	}}}
	s.create(helmRepository(repo), r)
	s.isReady("web")
	if got := s.data("web")["color"]; got != "patched" {
		t.Errorf("color %v", got)
	}
	web := &unstructured.Unstructured{Object: s.Get("/apis/apps/v1/namespaces/default/deployments/web-web")}
	if web.GetLabels()["team"] != "a" || web.GetAnnotations()["note"] != "b" || web.GetLabels()["helm.toolkit.fluxcd.io/name"] != "web" {
		t.Errorf("labels %v, annotations %v", web.GetLabels(), web.GetAnnotations())
	}
	containers, _, _ := unstructured.NestedSlice(web.Object, "spec", "template", "spec", "containers")
	if image := containers[0].(map[string]any)["image"]; image != "mirror.local/web:2" {
		t.Errorf("image %v", image)
	}
	// Only how it is rendered changes.
	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.PostRenderers = nil })
	s.eventually(func() error {
		if got := s.data("web")["color"]; got != "red" {
			return fmt.Errorf("color %v", got)
		}
		return nil
	})
}

// Definitions are there before what uses them.
func TestCRDs(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{
		"crds/thing.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.example.org}\n" +
			"spec:\n  group: example.org\n  scope: Namespaced\n  names: {kind: Thing, plural: things, singular: thing, listKind: ThingList}\n" +
			"  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]\n",
		"templates/thing.yaml": "{{ if .Capabilities.APIVersions.Has \"example.org/v1/Thing\" }}\napiVersion: example.org/v1\nkind: Thing\nmetadata: {name: one}\n{{ end }}\n",
	})
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.isReady("web")
	if s.Get("/apis/example.org/v1/namespaces/default/things/one") == nil {
		t.Error("the object of the new kind is not there")
	}
}

// Tests run after a release and decide about it.
func TestHelmTests(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", map[string]string{
		"templates/test.yaml": "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {{ .Release.Name }}-test\n  annotations: {helm.sh/hook: test}\n" +
			"spec: {template: {spec: {restartPolicy: Never, containers: [{name: t, image: t}]}}}\n",
	})
	r := helmRelease("web", "*")
	r.Spec.Test = &helmv2.Test{Enable: true}
	s.create(helmRepository(repo), r)
	job := "/apis/batch/v1/namespaces/default/jobs/web-test"
	s.eventually(func() error {
		if s.Get(job) == nil {
			return errors.New("the test does not run yet")
		}
		return nil
	})
	s.SetStatus(job, map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}})
	got := s.isReady("web")
	if c := conditions.Get(got, helmv2.TestSuccessCondition); c == nil || c.Status != metav1.ConditionTrue ||
		c.Message != "Helm test succeeded for release default/web.v1 with chart app@1.0.0: 1 test hook completed successfully" {
		t.Errorf("TestSuccess: %v", c)
	}
}
