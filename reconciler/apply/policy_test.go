package apply_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/kustomize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
)

func annotated(name, value, annotation string) string {
	return `{apiVersion: v1, kind: ConfigMap, metadata: {name: ` + name + `, namespace: default, annotations: {` + annotation + `}}, data: {k: "` + value + `"}}`
}

func (c *cluster) value(path string) any {
	c.t.Helper()
	o := c.Get(path)
	if o == nil {
		c.t.Fatalf("%s is not there", path)
	}
	data, _ := o["data"].(map[string]any)
	return data["k"]
}

func TestPolicies(t *testing.T) {
	const ssa = "kustomize.toolkit.fluxcd.io/ssa: "
	w := newWatched(t)
	w.Put(cmA, objects(t, configMap("a", "theirs"))[0].Object)
	w.Put(cmC, objects(t, configMap("c", "theirs"))[0].Object)
	w.set("1",
		annotated("a", "git", ssa+"IfNotPresent"), annotated("b", "git", ssa+"IfNotPresent"),
		annotated("c", "git", ssa+"Ignore"), annotated("d", "git", "kustomize.toolkit.fluxcd.io/reconcile: disabled"))
	pass := w.sync()
	got := map[string]apply.Action{}
	for _, c := range pass.Changes {
		got[c.ID.Name] = c.Action
	}
	if got["a"] != apply.Skipped || got["b"] != apply.Created || got["c"] != apply.Skipped || got["d"] != apply.Skipped {
		t.Errorf("changes %v", got)
	}
	if w.value(cmA) != "theirs" || w.value(cmB) != "git" || w.value(cmC) != "theirs" {
		t.Error("the policy was not followed")
	}
	w.settle()
	w.Edit(cmB, "hand", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
	w.mark()
	w.sync()
	if w.value(cmB) != "foreign" {
		t.Error("an object that is only created was set back")
	}
	w.Delete(cmB)
	w.undoes("the deletion of an object that is only created")
	w.settle()
	w.quiet("in the end")
}

func TestMergeKeepsWhatKubectlAdds(t *testing.T) {
	w := newWatched(t)
	w.set("1", annotated("a", "1", "kustomize.toolkit.fluxcd.io/ssa: Merge"), configMap("b", "1"))
	w.settle()
	for _, path := range []string{cmA, cmB} {
		w.Edit(path, "kubectl-edit", func(u *unstructured.Unstructured) {
			_ = unstructured.SetNestedField(u.Object, "by hand", "data", "extra")
		})
	}
	d := w.undoes("a field added with kubectl")
	if d.ID.Name != "b" || d.Manager != "kubectl-edit" || !slices.Equal(d.Fields, []string{".data.extra"}) {
		t.Errorf("drift %+v", d)
	}
	w.settle()
	if data := w.Get(cmB)["data"].(map[string]any); data["extra"] != nil || data["k"] != "1" {
		t.Errorf("the added field is still there: %v", data)
	}
	if w.Get(cmA)["data"].(map[string]any)["extra"] != "by hand" {
		t.Error("a field that was to be kept was removed")
	}
	w.quiet("in the end")
}

func TestAnObjectIsLeftAloneWhileItSaysSo(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), configMap("b", "1"))
	w.settle()
	w.Edit(cmA, "kubectl-annotate", func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{apply.ReconcileAnnotation: "disabled"})
	})
	w.mark()
	w.Edit(cmA, "kubectl-edit", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "by hand"} })
	w.mark()
	w.set("2", configMap("a", "2"), configMap("b", "1"))
	w.sync()
	if w.value(cmA) != "by hand" {
		t.Fatal("the object was not left alone")
	}
	// It stays so after a restart, when nothing is known.
	w.restart()
	w.set("2", configMap("a", "2"), configMap("b", "1"))
	w.sync()
	if w.value(cmA) != "by hand" {
		t.Fatal("the object was not left alone after a restart")
	}
	w.set("3", configMap("b", "1"))
	if pass := w.sync(); len(pass.Kept) != 1 {
		t.Errorf("pruned: %+v", pass)
	}
	w.set("4", configMap("a", "4"), configMap("b", "1"))
	w.sync()
	w.Edit(cmA, "kubectl-annotate", func(u *unstructured.Unstructured) { u.SetAnnotations(nil) })
	w.until("set to what Git says", func(*apply.Pass, apply.Summary) bool { return w.value(cmA) == "4" })
}

func TestIgnoredFieldsAreOthersToSet(t *testing.T) {
	rule := apply.IgnoreRule{Paths: []string{"/spec/replicas"}, Target: &kustomize.Selector{Kind: "Deployment"}}
	images := apply.IgnoreRule{Paths: []string{"/spec/template/spec/containers/0/image"}}
	w := newWatched(t, func(o *apply.Options) { o.Ignore = []apply.IgnoreRule{rule, images} })
	w.set("1", deployment)
	w.settle()
	replicas := func() any {
		n, _, _ := unstructured.NestedFieldNoCopy(w.Get(deploymentPath), "spec", "replicas")
		return n
	}
	image := func() any {
		list, _, _ := unstructured.NestedSlice(w.Get(deploymentPath), "spec", "template", "spec", "containers")
		return list[0].(map[string]any)["image"]
	}
	if replicas() != int64(1) {
		t.Fatal("an ignored field was not created as in Git")
	}
	w.Edit(deploymentPath, "scaler", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, int64(5), "spec", "replicas")
		list, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		list[0].(map[string]any)["image"] = "b"
		_ = unstructured.SetNestedSlice(u.Object, list, "spec", "template", "spec", "containers")
	})
	w.mark()
	if pass := w.sync(); pass.Sent > 0 {
		t.Errorf("an ignored field was taken for drift: %+v", pass)
	}
	w.set("2", strings.Replace(deployment, "spec: {replicas: 1", "spec: {minReadySeconds: 3, replicas: 1", 1))
	w.sync()
	if replicas() != int64(5) || image() != "b" {
		t.Errorf("a new commit set ignored fields: replicas %v, image %v", replicas(), image())
	}
	if n, _, _ := unstructured.NestedInt64(w.Get(deploymentPath), "spec", "minReadySeconds"); n != 3 {
		t.Error("the new commit was not applied")
	}
	w.settle()
	w.Edit(deploymentPath, "hand", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, int64(9), "spec", "minReadySeconds")
	})
	if d := w.undoes("a field that is not ignored"); !slices.Equal(d.Fields, []string{".spec.minReadySeconds"}) {
		t.Errorf("drift %+v", d)
	}
	if replicas() != int64(5) {
		t.Error("undoing drift set an ignored field")
	}
	w.options.Ignore = []apply.IgnoreRule{{Paths: []string{"/x"}, Target: &kustomize.Selector{Name: "("}}}
	w.engine.Configure(w.options)
	if err := w.engine.Set(apply.Desired{}); err == nil || !strings.Contains(err.Error(), "ignore rule 1") {
		t.Errorf("a bad selector: %v", err)
	}
}

// immutableKey refuses to change data.k of an existing ConfigMap.
func immutableKey(c *cluster) func(method, path string, body map[string]any) *metav1.Status {
	return func(method, path string, body map[string]any) *metav1.Status {
		if method != http.MethodPatch && method != "DRYRUN" || path != cmA {
			return nil
		}
		live := c.Server.Peek(path)
		data, ok := body["data"].(map[string]any)
		if live == nil || !ok || live["data"].(map[string]any)["k"] == data["k"] {
			return nil
		}
		return &metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: "data: Invalid value: field is immutable"}
	}
}

func TestForceCreatesAnew(t *testing.T) {
	for name, doc := range map[string]string{
		"by annotation": annotated("a", "2", "kustomize.toolkit.fluxcd.io/force: enabled"),
		"by option":     configMap("a", "2"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t, func(o *apply.Options) { o.Force = name == "by option" })
			w.set("1", configMap("a", "1"))
			w.settle()
			w.Refuse(immutableKey(w.cluster))
			uid := w.Get(cmA)["metadata"].(map[string]any)["uid"]
			w.set("2", doc)
			if pass := w.sync(); len(pass.Failures) > 0 {
				t.Fatalf("failures %v", pass.Failures)
			}
			if w.value(cmA) != "2" || w.Get(cmA)["metadata"].(map[string]any)["uid"] == uid {
				t.Error("the object was not created anew")
			}
			w.settle()
			w.quiet("in the end")
		})
	}
}

func TestForceWaitsForFinalizersWithoutBlocking(t *testing.T) {
	w := newWatched(t, func(o *apply.Options) { o.Force = true })
	w.set("1", configMap("a", "1"), configMap("b", "1"))
	w.settle()
	w.Edit(cmA, "controller", func(u *unstructured.Unstructured) { u.SetFinalizers([]string{"example.com/wait"}) })
	w.mark()
	w.Refuse(immutableKey(w.cluster))
	w.set("2", configMap("a", "2"), configMap("b", "2"))
	pass := w.sync()
	if len(pass.Failures) > 0 || len(pass.Replacing) != 1 || w.value(cmB) != "2" {
		t.Fatalf("pass %+v", pass)
	}
	w.Edit(cmA, "controller", func(u *unstructured.Unstructured) { u.SetFinalizers(nil) })
	w.until("created anew", func(*apply.Pass, apply.Summary) bool { return w.Get(cmA) != nil && w.value(cmA) == "2" })
}

// TestTakingOver adopts what other tools applied: fields that are not in Git go
// with the first apply, those that leave Git later go then.
func TestTakingOver(t *testing.T) {
	for manager, operation := range map[string]string{
		"kustomize-controller": "Apply", "flux": "Apply", "kubectl": "Apply", "kubectl-client-side-apply": "Update", "kubectl-create": "Update",
	} {
		t.Run(manager, func(t *testing.T) {
			w := newWatched(t)
			theirs := objects(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default, annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}}, data: {k: "1", old: "x", later: "y"}}`)[0].Object
			if operation == "Apply" {
				w.Apply(cmA, manager, theirs)
			} else {
				w.Put(cmA, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "default"}})
				w.Edit(cmA, manager, func(u *unstructured.Unstructured) {
					u.Object["data"] = theirs["data"]
					u.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"})
				})
			}
			w.set("1", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}, data: {k: "1", later: "y"}}`)
			w.settle()
			if data := w.Get(cmA)["data"].(map[string]any); data["old"] != nil || data["later"] != "y" {
				t.Errorf("data %v", data)
			}
			if annotations, _, _ := unstructured.NestedStringMap(w.Get(cmA), "metadata", "annotations"); len(annotations) > 0 {
				t.Errorf("annotations %v", annotations)
			}
			w.quiet("after taking over")
			w.set("2", configMap("a", "1"))
			w.sync()
			if data := w.Get(cmA)["data"].(map[string]any); data["later"] != nil {
				t.Errorf("what left Git stayed: %v", data)
			}
			w.settle()
			w.quiet("in the end")
		})
	}
}

// TestAFightIsNotAHotLoop: somebody sets a field again whenever it is set back.
func TestAFightIsNotAHotLoop(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), configMap("b", "1"))
	w.settle()
	for range 50 {
		w.Edit(cmA, "stubborn", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
		w.mark()
		pass := w.sync()
		if len(pass.Fights) == 0 {
			continue
		}
		f := pass.Fights[0]
		if f.ID.Name != "a" || f.Manager != "stubborn" || f.Undone < 5 || f.Next.IsZero() {
			t.Errorf("fight %+v", f)
		}
		// The others are not held up, nor is a new commit.
		w.Delete(cmB)
		w.until("b is back", func(*apply.Pass, apply.Summary) bool { return w.Get(cmB) != nil })
		w.set("2", configMap("a", "2"), configMap("b", "1"))
		w.sync()
		if w.value(cmA) != "2" {
			t.Error("a new commit had to wait")
		}
		return
	}
	t.Error("the engine did not rest")
}

func TestAFightIsTakenUpAgain(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"))
	w.settle()
	for range 20 {
		w.Edit(cmA, "stubborn", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
		w.mark()
		if pass := w.sync(); len(pass.Fights) > 0 {
			break
		}
	}
	w.until("set back after the pause, by itself", func(*apply.Pass, apply.Summary) bool { return w.value(cmA) == "1" })
}

func TestExtraObjectsCount(t *testing.T) {
	id := apply.ID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "default", Name: "d"}
	w := newWatched(t, func(o *apply.Options) { o.Wait, o.Extra = false, []apply.ID{id} })
	w.options.Wait = false
	w.engine.Configure(w.options)
	w.set("1", configMap("a", "1"))
	w.sync()
	summary, err := w.engine.Health(context.Background())
	if err != nil || summary.Total != 1 || len(summary.Pending) != 1 {
		t.Fatalf("an object that does not exist: %+v, %v", summary, err)
	}
	w.SetReady("d", false)
	w.Put(deploymentPath, objects(t, deployment)[0].Object)
	w.SetReady("d", true)
	w.until("ready", func(_ *apply.Pass, s apply.Summary) bool { return s.Done() && s.Total == 1 })
	w.Delete(deploymentPath)
	w.until("gone", func(_ *apply.Pass, s apply.Summary) bool { return !s.Done() })
}

func TestOwnObjectsAreAwaitedAlone(t *testing.T) {
	id := apply.ID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "default", Name: "d"}
	w := newWatched(t, func(o *apply.Options) { o.Wait, o.Extra = false, []apply.ID{id} })
	w.SetReady("d", false)
	w.set("1", configMap("a", "1"), deployment)
	w.until("pending", func(_ *apply.Pass, s apply.Summary) bool { return s.Total == 1 && len(s.Pending) == 1 })
	w.mark()
	w.SetReady("d", true)
	w.until("ready", func(_ *apply.Pass, s apply.Summary) bool { return s.Done() && s.Total == 1 })
}

func TestASetDoesNotWaitForItself(t *testing.T) {
	w := newWatched(t, func(o *apply.Options) {
		o.Self = apply.ID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "default", Name: "d"}
	})
	w.SetReady("d", false)
	w.set("1", configMap("a", "1"), deployment)
	w.until("ready without itself", func(_ *apply.Pass, s apply.Summary) bool { return s.Done() && s.Total == 1 })
}

const widget = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.com}, spec: {group: example.com, scope: Namespaced, names: {kind: Widget, plural: widgets}, versions: [{name: v1}]}}"

func TestHealthOfKinds(t *testing.T) {
	expr := apply.HealthExpr{APIVersion: "example.com/v1", Kind: "Widget"}
	expr.Current, expr.Failed = "status.phase == 'Done'", "status.phase == 'Broken'"
	w := newWatched(t, func(o *apply.Options) { o.HealthExprs = []apply.HealthExpr{expr} })
	const (
		job     = "/apis/batch/v1/namespaces/default/jobs/j"
		thing   = "/apis/example.com/v1/namespaces/default/widgets/w"
		jobDoc  = "{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: default}}"
		wantDoc = "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, namespace: default}, spec: {}}"
	)
	w.set("1", widget, jobDoc, wantDoc)
	w.until("two pending", func(_ *apply.Pass, s apply.Summary) bool { return len(s.Pending) == 2 })
	w.SetStatus(job, map[string]any{"startTime": "2026-01-01T00:00:00Z", "active": int64(1)})
	w.SetStatus(thing, map[string]any{"phase": "Working"})
	w.mark()
	w.until("a running job is not done", func(_ *apply.Pass, s apply.Summary) bool { return len(s.Pending) == 2 })
	w.SetStatus(job, map[string]any{"conditions": []any{map[string]any{"type": "Failed", "status": "True"}}})
	w.SetStatus(thing, map[string]any{"phase": "Broken"})
	w.until("both failed", func(_ *apply.Pass, s apply.Summary) bool { return len(s.Failed) == 2 })
	w.SetStatus(job, map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}})
	w.SetStatus(thing, map[string]any{"phase": "Done"})
	w.until("both done", func(_ *apply.Pass, s apply.Summary) bool { return s.Done() })
	w.options.HealthExprs[0].Current = "status.phase =="
	w.engine.Configure(w.options)
	if err := w.engine.Set(apply.Desired{}); err == nil || !strings.Contains(err.Error(), "Widget") {
		t.Errorf("a bad expression: %v", err)
	}
}

func TestTheDefinitionOfAKindGoesAndComes(t *testing.T) {
	w := newWatched(t)
	const thing = "/apis/example.com/v1/namespaces/default/widgets/w"
	w.set("1", widget, "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, namespace: default}, spec: {a: b}}")
	w.settle()
	w.Delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com")
	w.until("both are back", func(pass *apply.Pass, _ apply.Summary) bool { return w.Get(thing) != nil && len(pass.Failures) == 0 })
}

func TestObjectsWithoutNamespaceArePlaced(t *testing.T) {
	w := newWatched(t)
	docs := []string{"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}", "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: p, namespace: default}, value: 1}"}
	w.set("1", docs...)
	w.settle()
	w.wants(cmA, "/apis/scheduling.k8s.io/v1/priorityclasses/p")
	w.set("2", docs...)
	if pass := w.sync(); pass.Sent > 0 || len(pass.Pruned) > 0 {
		t.Errorf("the same objects again: %+v", pass)
	}
	w.Delete(cmA)
	w.undoes("the deletion of a placed object")
}
