package apply_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler/apply"
)

func (c *cluster) plan() map[string]apply.PlannedChange {
	c.t.Helper()
	before := c.Paths()
	plans, err := c.engine.Plan(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	if after := c.Paths(); !slices.Equal(before, after) {
		c.t.Fatalf("the plan changed the cluster: %v, before %v", after, before)
	}
	out := map[string]apply.PlannedChange{}
	for _, p := range plans {
		out[p.ID.Kind+" "+p.ID.Name] = p
	}
	return out
}

const secret = "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: default}, data: {same: c2FtZQ==, token: %, gone: Z29uZQ==}}"

func TestPlan(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"), configMap("c", "1"), configMap("x", "1"), strings.Replace(secret, "%", "b2xkdG9rZW4=", 1))
	c.sync()
	c.set("2", configMap("a", "2"), configMap("b", "1"), configMap("x", "1"),
		strings.Replace(strings.Replace(secret, "%", "bmV3dG9rZW4=", 1), ", gone: Z29uZQ==", "", 1),
		"{apiVersion: v1, kind: Namespace, metadata: {name: web}}",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: inside, namespace: web}, data: {k: v}}",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: nowhere, namespace: missing}, data: {k: v}}",
		widget, "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, namespace: default}, spec: {}}",
		"{apiVersion: nobody.example/v1, kind: Ghost, metadata: {name: g, namespace: default}}")
	plans := c.plan()
	for name, want := range map[string]apply.Action{
		"ConfigMap a": apply.Configured, "ConfigMap b": apply.Unchanged, "ConfigMap c": apply.Deleted, "Secret s": apply.Configured,
		"Namespace web": apply.Created, "ConfigMap inside": apply.Created, "Widget w": apply.Created,
		"CustomResourceDefinition widgets.example.com": apply.Created, "ConfigMap nowhere": apply.Created, "Ghost g": apply.Created,
	} {
		if p, ok := plans[name]; !ok || p.Action != want {
			t.Errorf("%s: %+v, want %s", name, p, want)
		}
		if problem := plans[name].Problem; (problem != "") != (name == "ConfigMap nowhere" || name == "Ghost g") {
			t.Errorf("%s: problem %q", name, problem)
		}
	}
	if d := plans["ConfigMap a"].Diff; !strings.Contains(d, "-  k: \"1\"") || !strings.Contains(d, "+  k: \"2\"") || strings.Contains(d, "managedFields") {
		t.Errorf("diff %s", d)
	}
	d := plans["Secret s"].Diff
	for _, want := range []string{"same: '*** (unchanged)'", "-  token: '*** (before)'", "+  token: '*** (after)'", "-  gone: '*** (removed)'"} {
		if !strings.Contains(d, want) {
			t.Errorf("the diff of the Secret lacks %q: %s", want, d)
		}
	}
	for _, value := range []string{"c2FtZQ", "b2xkdG9rZW4", "bmV3dG9rZW4", "Z29uZQ"} {
		if strings.Contains(d, value) {
			t.Errorf("the diff shows a value: %s", d)
		}
	}
	// After the plan comes the same as without one.
	if pass := c.sync(); pass.Sent != 8 {
		t.Errorf("sent %d: %+v", pass.Sent, pass.Changes)
	}
}

func TestPlanTellsTheGuardsVerdict(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"), configMap("b", "1"), configMap("c", "1"))
	c.sync()
	c.set("2", configMap("a", "1"))
	if p := c.plan()["ConfigMap b"]; p.Action != apply.Deleted || !strings.Contains(p.Problem, apply.AllowPruneTrailer) {
		t.Errorf("plan %+v", p)
	}
	c.allow = true
	if p := c.plan()["ConfigMap b"]; p.Action != apply.Deleted || p.Problem != "" {
		t.Errorf("plan %+v", p)
	}
}

func TestPlanOfImmutableChanges(t *testing.T) {
	c := newCluster(t)
	c.set("1", configMap("a", "1"))
	c.sync()
	c.Refuse(immutableKey(c))
	c.set("2", configMap("a", "2"))
	if p := c.plan()["ConfigMap a"]; p.Action != apply.Configured || !strings.Contains(p.Problem, "immutable") {
		t.Errorf("plan %+v", p)
	}
	c.set("2", annotated("a", "2", "kustomize.toolkit.fluxcd.io/force: enabled"))
	if p := c.plan()["ConfigMap a"]; p.Action != apply.Configured || !strings.Contains(p.Problem, "created anew") || p.Diff == "" {
		t.Errorf("plan %+v", p)
	}
}
