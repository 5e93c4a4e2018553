package apply_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// watched is a cluster whose engine is told by a hub.
type watched struct {
	*cluster
	hub *apply.Hub

	mu       sync.Mutex
	notified int
	wake     chan struct{}
}

func newWatched(t *testing.T, change ...func(*apply.Options)) *watched {
	w := &watched{cluster: newCluster(t), wake: make(chan struct{}, 1)}
	w.hub = apply.NewHub(w.client, slog.New(slog.DiscardHandler))
	w.options.Hub = w.hub
	w.options.Notify = w.notify
	for _, f := range change {
		f(&w.options)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.hub.Run(ctx) }()
	t.Cleanup(func() {
		w.engine.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	w.restart()
	return w
}

func (w *watched) notify() {
	w.mu.Lock()
	w.notified++
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// until calls Sync and Health whenever the engine asks, until ok.
func (w *watched) until(what string, ok func(*apply.Pass, apply.Summary) bool) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		pass := w.sync()
		summary, err := w.engine.Health(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		if ok(pass, summary) {
			return
		}
		select {
		case <-w.wake:
		case <-deadline:
			w.t.Fatalf("not within 10 s: %s (pass %+v, summary %+v)", what, pass, summary)
		}
	}
}

// undoes waits for a notification and for the pass that undoes something.
func (w *watched) undoes(what string) *apply.Drift {
	w.t.Helper()
	var drift *apply.Drift
	w.until(what, func(pass *apply.Pass, _ apply.Summary) bool {
		for _, c := range pass.Changes {
			if c.Drift != nil {
				drift = c.Drift
			}
		}
		return drift != nil
	})
	return drift
}

// settle waits until the hub has seen everything the engine did and nothing is
// left to do; then nothing may be requested.
func (w *watched) settle() {
	w.t.Helper()
	w.until("done", func(pass *apply.Pass, s apply.Summary) bool {
		return s.Done() && len(pass.Failures) == 0
	})
	w.t.Helper()
	w.mark()
}

// mark changes an object of a kind that is watched and waits until that is
// noticed: whatever happened before was then seen too.
func (w *watched) mark() {
	w.t.Helper()
	name := "marker"
	path := "/api/v1/namespaces/default/configmaps/" + name
	seen := make(chan struct{}, 1)
	e := apply.NewEngine(w.client, apply.Options{
		Name: "marker", Hub: w.hub, Store: apply.ConfigMapStore(w.client, "marker"),
		Notify: func() {
			select {
			case seen <- struct{}{}:
			default:
			}
		},
	})
	defer e.Close()
	if err := e.Set(apply.Desired{Objects: objects(w.t, configMap(name, "1"))}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := e.Sync(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.Edit(path, "marker", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "2"} })
	select {
	case <-seen:
	case <-time.After(10 * time.Second):
		w.t.Fatal("the hub did not see a change within 10 s")
	}
	w.Delete(path)
	w.Delete("/api/v1/namespaces/bothy-system/configmaps/inventory-marker")
	w.TakeRequests()
	w.mu.Lock()
	w.notified = 0
	w.mu.Unlock()
}

// quiet fails if the engine was told anything, or wants to send or look.
func (w *watched) quiet(what string) {
	w.t.Helper()
	if pass := w.sync(); pass.Sent > 0 || len(pass.Changes) > 0 {
		w.t.Errorf("%s: sent %+v", what, pass)
	}
	if _, err := w.engine.Health(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if r := slices.DeleteFunc(w.TakeRequests(), func(r string) bool { return strings.HasPrefix(r, "WATCH") }); len(r) > 0 {
		w.t.Errorf("%s: requested %v", what, r)
	}
}

const (
	deployment     = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: default}, spec: {replicas: 1, template: {spec: {containers: [{name: c, image: a}]}}}}"
	deploymentPath = "/apis/apps/v1/namespaces/default/deployments/d"
)

func TestDriftIsUndoneWhenItHappens(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), configMap("b", "1"), deployment)
	w.settle()
	w.quiet("after the first pass")

	w.Edit(cmA, "hand", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
	d := w.undoes("a changed value")
	if d.Manager != "hand" || d.Operation != "Update" || d.Action != apply.DriftChanged || !slices.Equal(d.Fields, []string{".data.k"}) || d.UndoneAfter > time.Second {
		t.Errorf("drift %+v", d)
	}
	if w.Get(cmA)["data"].(map[string]any)["k"] != "1" {
		t.Error("the value was not set back")
	}

	w.Delete(cmB)
	if d := w.undoes("a deletion"); d.Action != apply.DriftDeleted || d.ID.Name != "b" {
		t.Errorf("drift %+v", d)
	}
	if w.Get(cmB) == nil {
		t.Error("the object was not created again")
	}

	w.Edit(deploymentPath, "scaler", func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(u.Object, int64(5), "spec", "replicas")
	})
	if d := w.undoes("replicas"); d.Manager != "scaler" || !slices.Equal(d.Fields, []string{".spec.replicas"}) {
		t.Errorf("drift %+v", d)
	}

	w.Edit(cmA, "hand", func(u *unstructured.Unstructured) { unstructured.RemoveNestedField(u.Object, "data", "k") })
	if d := w.undoes("a removed field"); !slices.Equal(d.Fields, []string{".data.k"}) {
		t.Errorf("drift %+v", d)
	}

	w.Edit(cmA, "hand", func(u *unstructured.Unstructured) { u.SetLabels(nil) })
	if d := w.undoes("removed labels"); d.Action != apply.DriftChanged || !slices.Contains(d.Fields, ".metadata.labels.bothy.dev/inventory") {
		t.Errorf("drift %+v", d)
	}
	total, recent := w.engine.Drifts()
	if total != 5 || len(recent) != 5 || recent[1].Action != apply.DriftDeleted {
		t.Errorf("%d drifts, recent %+v", total, recent)
	}
	w.settle()
	w.quiet("after everything was undone")
}

func TestWhatIsNotDrift(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), deployment)
	w.settle()

	w.Edit(cmA, "hand", func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{"note": "mine"})
		_ = unstructured.SetNestedField(u.Object, "more", "data", "other")
	})
	w.Edit(deploymentPath, "controller", func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{"deployment.kubernetes.io/revision": "1"})
	})
	w.Edit(deploymentPath, "kustomize-controller", func(u *unstructured.Unstructured) { u.SetFinalizers([]string{"finalizers.fluxcd.io"}) })
	w.mark()
	w.engine.Configure(w.options)
	if pass := w.sync(); pass.Sent > 0 {
		t.Errorf("fields that others added were taken for drift: %+v", pass)
	}
	if w.Get(cmA)["data"].(map[string]any)["other"] != "more" {
		t.Error("a field of somebody else was removed")
	}
}

func TestHealthIsToldByEvents(t *testing.T) {
	w := newWatched(t)
	w.SetReady("d", false)
	w.set("1", configMap("a", "1"), deployment)
	w.until("pending", func(_ *apply.Pass, s apply.Summary) bool { return len(s.Pending) == 1 && s.Ready == 1 })
	w.mark()
	w.quiet("while nothing happens")
	w.SetReady("d", true)
	w.until("ready", func(_ *apply.Pass, s apply.Summary) bool { return s.Done() })
	if n := len(w.TakeRequests()); n > 3 {
		t.Errorf("becoming ready took %d requests", n)
	}
	w.SetReady("d", false)
	w.until("not ready any more", func(_ *apply.Pass, s apply.Summary) bool { return !s.Done() })
}

func TestWithoutWaitHealthWakesNobody(t *testing.T) {
	w := newWatched(t, func(o *apply.Options) { o.Wait = false })
	w.options.Wait = false
	w.engine.Configure(w.options)
	w.SetReady("d", false)
	w.set("1", deployment)
	w.settle()
	w.SetReady("d", true)
	w.SetReady("d", false)
	w.mark()
	w.quiet("status changes that nobody waits for")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notified != 0 {
		t.Errorf("notified %d times", w.notified)
	}
}

func TestDriftWhileTheServerWasAway(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("history lost %v", lost), func(t *testing.T) {
			w := newWatched(t)
			w.set("1", configMap("a", "1"), configMap("b", "1"), configMap("c", "1"))
			w.settle()
			w.Down(true)
			w.Edit(cmA, "hand", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
			w.Delete(cmB)
			if lost {
				w.Compact()
			}
			w.Down(false)
			w.until("undone", func(*apply.Pass, apply.Summary) bool {
				a, b := w.Get(cmA), w.Get(cmB)
				return b != nil && a["data"].(map[string]any)["k"] == "1"
			})
		})
	}
}

func TestWatchesEndWhenNobodyNeedsThem(t *testing.T) {
	w := newWatched(t)
	w.hub.SetLinger(time.Millisecond)
	w.set("1", configMap("a", "1"), deployment)
	w.settle()
	eventually(t, "two watches of two objects", func() bool { return w.hub.Stats() == apply.HubStats{Watches: 2, Objects: 2} })
	w.allow = true
	w.set("2", configMap("a", "1"))
	w.sync()
	eventually(t, "one watch is left", func() bool { return w.hub.Stats().Watches == 1 })
	w.engine.Close()
	eventually(t, "no watch is left", func() bool { return w.hub.Stats().Watches == 0 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(2 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestOneHubTellsManyEngines(t *testing.T) {
	w := newWatched(t)
	const engines = 20
	told := make([]chan struct{}, engines)
	all := make([]*apply.Engine, engines)
	for i := range engines {
		told[i] = make(chan struct{}, 1)
		name := fmt.Sprintf("e%d", i)
		all[i] = apply.NewEngine(w.client, apply.Options{
			Name: "kustomization", Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": name},
			Store: apply.ConfigMapStore(w.client, name), Hub: w.hub, Prune: true,
			Notify: func() { told[i] <- struct{}{} },
		})
		defer all[i].Close()
		if err := all[i].Set(apply.Desired{Objects: objects(t, configMap(name, "1"))}); err != nil {
			t.Fatal(err)
		}
		if _, err := all[i].Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.hub.Stats(); s.Watches != 1 {
		t.Errorf("%d watches", s.Watches)
	}
	w.Delete("/api/v1/namespaces/default/configmaps/e7")
	select {
	case <-told[7]:
	case <-time.After(10 * time.Second):
		t.Fatal("the engine was not told")
	}
	pass, err := all[7].Sync(context.Background())
	if err != nil || len(pass.Changes) != 1 || pass.Changes[0].Drift == nil {
		t.Fatalf("pass %+v, %v", pass, err)
	}
	for i := range told {
		if len(told[i]) > 0 {
			t.Errorf("engine %d was told of something", i)
		}
	}
}

// TestAnObjectOfAnotherInventory: what another inventory took over is taken
// back, but not deleted by the other one, and the fight is not endless.
func TestTwoEnginesWantTheSameObject(t *testing.T) {
	w := newWatched(t)
	other := apply.NewEngine(w.client, apply.Options{Name: "other", Store: apply.ConfigMapStore(w.client, "other"), Prune: true})
	w.set("1", configMap("a", "1"))
	w.settle()
	if err := other.Set(apply.Desired{Objects: objects(t, configMap("a", "2"))}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := other.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.mark()
		if pass := w.sync(); len(pass.Fights) > 0 {
			if err := other.Set(apply.Desired{}); err != nil {
				t.Fatal(err)
			}
			return
		}
		if _, err := other.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("no fight was noticed")
}
