package apply_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/internal/fakeapi"
)

// cluster is a fake API server with an engine.
type cluster struct {
	*fakeapi.Server
	t       *testing.T
	client  *apply.Client
	engine  *apply.Engine
	options apply.Options
	allow   bool
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{Server: fakeapi.New(t), t: t, options: apply.Options{Prune: true, Guard: true, Wait: true}}
	c.restart()
	return c
}

// restart forgets everything that is not in the cluster.
func (c *cluster) restart() {
	c.t.Helper()
	client, err := apply.Connect(c.Kubeconfig(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.engine != nil {
		c.engine.Close()
	}
	c.client = client
	c.options.Name, c.options.Store = "site", apply.ConfigMapStore(client, "site")
	c.engine = apply.NewEngine(client, c.options)
}

func objects(t *testing.T, docs ...string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, doc := range docs {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

func configMap(name, value string) string {
	return `{apiVersion: v1, kind: ConfigMap, metadata: {name: "` + name + `", namespace: default}, data: {k: "` + value + `"}}`
}

func (c *cluster) set(commit string, docs ...string) {
	c.t.Helper()
	err := c.engine.Set(apply.Desired{Commit: commit, Objects: objects(c.t, docs...), AllowPrune: func(string) bool { return c.allow }})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) sync() *apply.Pass {
	c.t.Helper()
	pass, err := c.engine.Sync(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return pass
}

func (c *cluster) wants(paths ...string) {
	c.t.Helper()
	slices.Sort(paths)
	if got := c.Paths(); !slices.Equal(got, paths) {
		c.t.Fatalf("the cluster holds %v, want %v", got, paths)
	}
}

const (
	cmA = "/api/v1/namespaces/default/configmaps/a"
	cmB = "/api/v1/namespaces/default/configmaps/b"
	cmC = "/api/v1/namespaces/default/configmaps/c"
)

func TestApplyAndPrune(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"), configMap("c", "1"))
	if pass := c.sync(); pass.Sent != 3 || len(pass.Failures)+len(pass.Pruned) > 0 {
		t.Fatalf("first pass %+v", pass)
	}
	c.wants(cmA, cmB, cmC)

	c.set("2", configMap("a", "2"), configMap("b", "1"))
	pass := c.sync()
	if pass.Sent != 1 || len(pass.Pruned) != 1 || pass.Pruned[0].Name != "c" {
		t.Fatalf("second pass %+v", pass)
	}
	c.wants(cmA, cmB)
}

func TestUnchangedObjectsAreNotSentAgain(t *testing.T) {
	c := newCluster(t)
	docs := []string{configMap("a", "1"), configMap("b", "1")}
	c.set("1", docs...)
	c.sync()
	c.TakeRequests()
	if pass := c.sync(); pass.Sent != 0 {
		t.Errorf("sent %d objects again", pass.Sent)
	}
	if r := c.TakeRequests(); len(r) != 0 {
		t.Errorf("an idle pass made requests: %v", r)
	}
	if drifted, err := c.engine.Refresh(context.Background()); err != nil || len(drifted) > 0 {
		t.Errorf("drift %v, %v", drifted, err)
	}
	if r := c.TakeRequests(); !slices.Equal(r, []string{"GET /api/v1/configmaps"}) {
		t.Errorf("looking for drift made requests: %v", r)
	}
	// A new commit with the same objects costs its inventory only.
	c.set("2", docs...)
	c.sync()
	for _, r := range c.TakeRequests() {
		if strings.HasPrefix(r, "PATCH") {
			t.Errorf("unchanged object sent: %s", r)
		}
	}
}

func TestStages(t *testing.T) {
	c := newCluster(t)
	c.set("1",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: web}, spec: {replicas: 1}}",
		"{apiVersion: example.com/v1, kind: Thing, metadata: {name: t, namespace: web}}",
		configMap("a", "1"),
		"{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: p}}",
		"{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: things.example.com}, spec: {group: example.com, scope: Namespaced, names: {kind: Thing, plural: things}, versions: [{name: v1}]}}",
		"{apiVersion: v1, kind: Namespace, metadata: {name: web}}",
	)
	if pass := c.sync(); len(pass.Failures) > 0 {
		t.Fatalf("failures %v", pass.Failures)
	}
	var order []string
	for _, r := range c.TakeRequests() {
		if path, ok := strings.CutPrefix(r, "PATCH "); ok {
			order = append(order, path[strings.LastIndex(path, "/")+1:])
		}
	}
	for _, pair := range [][2]string{{"web", "d"}, {"things.example.com", "t"}, {"p", "d"}, {"web", "p"}, {"a", "d"}} {
		if slices.Index(order, pair[0]) > slices.Index(order, pair[1]) {
			t.Errorf("%s was sent after %s: %v", pair[0], pair[1], order)
		}
	}
}

func TestOneFailureDoesNotHoldUpOthersNorPrune(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"), configMap("c", "1"))
	c.sync()
	c.Refuse(func(method, path string, _ map[string]any) *metav1.Status {
		if method == "PATCH" && path == cmA {
			return &metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: "data: Invalid value: field is immutable"}
		}
		return nil
	})
	c.set("2", configMap("a", "2"), configMap("b", "2"))
	pass := c.sync()
	if len(pass.Failures) != 1 || pass.Failures[0].ID.Name != "a" || !strings.Contains(pass.Failures[0].Remedy, "another name") {
		t.Fatalf("failures %+v", pass.Failures)
	}
	if len(pass.Pruned) > 0 {
		t.Errorf("pruned %v after an error", pass.Pruned)
	}
	c.wants(cmA, cmB, cmC)
	if data := c.Get(cmB)["data"].(map[string]any); data["k"] != "2" {
		t.Error("the other object was held up")
	}
	summary, err := c.engine.Health(context.Background())
	if err != nil || summary.Ready != 1 || len(summary.Failed) != 1 {
		t.Errorf("summary %+v, %v", summary, err)
	}

	c.Refuse(nil)
	if pass := c.sync(); len(pass.Failures) != 0 || len(pass.Pruned) != 1 {
		t.Fatalf("after the cause was removed: %+v", pass)
	}
	c.wants(cmA, cmB)
}

func TestPruneGuards(t *testing.T) {
	c := newCluster(t)
	full := []string{configMap("a", "1"), configMap("b", "1"), configMap("c", "1")}
	c.set("1", full...)
	c.sync()

	c.set("2", configMap("a", "1"))
	if pass := c.sync(); pass.Guard == nil || !strings.Contains(pass.Guard.Problem, "2 of 3") || !strings.Contains(pass.Guard.Remedy, apply.AllowPruneTrailer) {
		t.Fatalf("two of three: %+v", pass)
	}
	c.set("3")
	if pass := c.sync(); pass.Guard == nil || !strings.Contains(pass.Guard.Problem, "no objects") {
		t.Fatalf("nothing left: %+v", pass)
	}
	c.wants(cmA, cmB, cmC)

	// A crash between the extended inventory and the apply must not make room.
	c.set("4", configMap("x", "1"), configMap("y", "1"), configMap("z", "1"))
	c.sync()
	c.restart()
	c.set("4", configMap("x", "1"), configMap("y", "1"), configMap("z", "1"))
	if pass := c.sync(); pass.Guard == nil {
		t.Fatalf("everything replaced: %+v", pass)
	}

	c.allow = true
	c.set("5", configMap("a", "1"))
	if pass := c.sync(); pass.Guard != nil || len(pass.Pruned) != 5 {
		t.Fatalf("allowed: %+v", pass)
	}
	c.wants(cmA)
	c.set("6")
	c.sync()
	c.wants()
}

func TestObjectsOfUnfinishedCommitsDoNotCountForTheGuard(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"))
	c.sync()
	c.Refuse(func(_, path string, _ map[string]any) *metav1.Status {
		if path == cmB {
			return &metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: "not now"}
		}
		return nil
	})
	for i := range 5 {
		n := strconv.Itoa(i)
		c.set(n, configMap("a", "1"), configMap("b", "2"), configMap("x"+n, "1"))
		if pass := c.sync(); len(pass.Failures) != 1 {
			t.Fatalf("commit %s: %+v", n, pass)
		}
	}
	c.Refuse(nil)
	if pass := c.sync(); pass.Guard != nil || len(pass.Pruned) != 4 {
		t.Fatalf("after the cause was removed: %+v", pass)
	}
	c.wants(cmA, cmB, "/api/v1/namespaces/default/configmaps/x4")
}

func TestPruneSparesWhatIsNotOurs(t *testing.T) {
	c := newCluster(t)
	docs := []string{configMap("a", "1"), configMap("b", "1"), configMap("c", "1"), configMap("d", "1"), configMap("e", "1")}
	docs[1] = "{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: default, annotations: {bothy.dev/prune: disabled}}}"
	c.set("1", docs...)
	c.sync()
	c.Put(cmC, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "c", "namespace": "default"}})
	c.set("2", docs[0], docs[3], docs[4])
	pass := c.sync()
	if len(pass.Pruned) != 0 || len(pass.Kept) != 2 {
		t.Fatalf("pass %+v", pass)
	}
	if c.Get(cmB) == nil || c.Get(cmC) == nil {
		t.Error("an object that is not ours was deleted")
	}
}

// TestInventorySurvivesRestart is a crash after an apply: the engine that comes
// back must still know what to delete.
func TestInventorySurvivesRestart(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"))
	c.sync()
	c.restart()
	c.set("2", configMap("a", "1"))
	if pass := c.sync(); len(pass.Pruned) != 1 {
		t.Fatalf("pass %+v", pass)
	}
	c.wants(cmA)
}

func TestDriftIsUndone(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"), "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: default}, spec: {replicas: 1}}")
	c.sync()
	changed := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "default", "labels": map[string]any{apply.InventoryLabel: "site"}}, "data": map[string]any{"k": "foreign"}}
	c.Put(cmA, changed)
	c.Delete(cmB)
	c.SetReady("d", false) // a status change is not drift
	drifted, err := c.engine.Refresh(context.Background())
	if err != nil || len(drifted) != 2 {
		t.Fatalf("drifted %v, %v", drifted, err)
	}
	if summary, err := c.engine.Health(context.Background()); err != nil || len(summary.Pending) == 0 {
		t.Errorf("the Deployment's health was not noticed: %+v, %v", summary, err)
	}
	if pass := c.sync(); pass.Sent != 2 {
		t.Fatalf("pass %+v", pass)
	}
	if data := c.Get(cmA)["data"].(map[string]any); data["k"] != "1" || c.Get(cmB) == nil {
		t.Error("drift was not undone")
	}
}

func TestHealth(t *testing.T) {
	c := newCluster(t)
	c.SetReady("d", false)
	c.set("1", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: default}, spec: {replicas: 1}}", configMap("a", "1"))
	c.sync()
	summary, err := c.engine.Health(context.Background())
	if err != nil || summary.Done() || summary.Ready != 1 || len(summary.Pending) != 1 || summary.Pending[0].Problem == "" {
		t.Fatalf("summary %+v, %v", summary, err)
	}
	c.SetReady("d", true)
	if summary, err = c.engine.Health(context.Background()); err != nil || !summary.Done() {
		t.Fatalf("summary %+v, %v", summary, err)
	}
}

func TestUnavailable(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"))
	c.Down(true)
	if _, err := c.engine.Sync(context.Background()); !errors.Is(err, apply.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	c.Down(false)
	c.sync()
	c.wants(cmA)
	if _, err := apply.Connect("/nonexistent"); !errors.Is(err, apply.ErrUnavailable) {
		t.Errorf("missing kubeconfig: %v", err)
	}
}

func TestUnknownKind(t *testing.T) {
	c := newCluster(t)
	c.set("1", "{apiVersion: nowhere.example/v1, kind: Thing, metadata: {name: t}}", configMap("a", "1"))
	pass := c.sync()
	if len(pass.Failures) != 1 || !strings.Contains(pass.Failures[0].Error(), "CustomResourceDefinition") {
		t.Fatalf("failures %v", pass.Failures)
	}
	c.wants(cmA)
}

func TestContextEndsASync(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	began := time.Now()
	if _, err := c.engine.Sync(ctx); err == nil {
		t.Error("a cancelled pass succeeded")
	}
	if time.Since(began) > 5*time.Second {
		t.Error("a cancelled pass took its time")
	}
}
