package apply_test

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
)

func TestDelete(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), annotated("b", "1", "kustomize.toolkit.fluxcd.io/prune: disabled"), configMap("c", "1"),
		"{apiVersion: v1, kind: Namespace, metadata: {name: web}}", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: web}, spec: {replicas: 1}}")
	w.settle()
	w.Edit(cmC, "hand", func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{apply.InventoryLabel: "other"}) })
	w.restart() // the finalizer may be all that is left to do
	w.TakeRequests()
	done, err := w.engine.Delete(context.Background(), false)
	if err != nil || !done {
		t.Fatalf("done %v, %v", done, err)
	}
	w.wants(cmB, cmC)
	var order []string
	for _, r := range w.TakeRequests() {
		if path, ok := strings.CutPrefix(r, "DELETE "); ok {
			order = append(order, path[strings.LastIndex(path, "/")+1:])
		}
	}
	if strings.Join(order, " ") != "d a web" {
		t.Errorf("deleted in the order %v", order)
	}
	if done, err := w.engine.Delete(context.Background(), false); err != nil || !done {
		t.Errorf("again: %v, %v", done, err)
	}
}

func TestDeleteWaitsForTheEnd(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), configMap("b", "1"))
	w.settle()
	w.Edit(cmA, "controller", func(u *unstructured.Unstructured) { u.SetFinalizers([]string{"example.com/wait"}) })
	w.restart()
	if done, err := w.engine.Delete(context.Background(), true); err != nil || done {
		t.Fatalf("done %v, %v", done, err)
	}
	w.wants(cmA)
	w.Edit(cmA, "controller", func(u *unstructured.Unstructured) { u.SetFinalizers(nil) })
	eventually(t, "deleted", func() bool {
		select {
		case <-w.wake:
		default:
			return false
		}
		done, err := w.engine.Delete(context.Background(), true)
		return err == nil && done
	})
	w.wants()
}

func TestDeleteNamesWhatItCannot(t *testing.T) {
	w := newWatched(t)
	w.set("1", configMap("a", "1"), configMap("b", "1"))
	w.settle()
	w.Refuse(func(method, path string, _ map[string]any) *metav1.Status {
		if method == "DELETE" && path == cmA {
			return &metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: "a policy forbids it"}
		}
		return nil
	})
	if done, err := w.engine.Delete(context.Background(), false); done || err == nil || !strings.Contains(err.Error(), "ConfigMap default/a") {
		t.Errorf("done %v, %v", done, err)
	}
	w.wants(cmA)
	w.Refuse(nil)
	if done, err := w.engine.Delete(context.Background(), false); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	w.wants()
}

func TestWithoutPruneObjectsStay(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"))
	c.sync()
	c.options.Prune = false
	c.engine.Configure(c.options)
	c.set("2", configMap("a", "1"))
	if pass := c.sync(); len(pass.Pruned) > 0 || pass.Guard != nil {
		t.Errorf("pass %+v", pass)
	}
	c.wants(cmA, cmB)
	if ids := c.engine.Inventory(); len(ids) != 1 {
		t.Errorf("inventory %v", ids)
	}
}
