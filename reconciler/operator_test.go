package reconciler_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/history"
)

// planned finds what a preview says about an object.
func planned(t *testing.T, p *reconciler.Preview, name string) apply.PlannedChange {
	t.Helper()
	for _, s := range p.Syncs {
		for _, c := range s.Changes {
			if c.ID.Name == name {
				return c
			}
		}
	}
	t.Fatalf("%s is not in %+v", name, p)
	return apply.PlannedChange{}
}

func TestPreviewStoresNothing(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	before := m.api.Paths()
	files := fstest.MapFS{}
	for name, content := range map[string]string{
		"clusters/default/cluster.yaml": "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: other\n",
		"clusters/default/a.yaml":       strings.NewReplacer("%s", "a", "%q", `"2"`).Replace(manifest),
		"clusters/default/b.yaml":       strings.NewReplacer("%s", "b", "%q", `"1"`).Replace(manifest),
		"clusters/default/d.yaml":       strings.NewReplacer("%s", "d", "%q", `"1"`).Replace(manifest),
	} {
		files[name] = &fstest.MapFile{Data: []byte(content)}
	}
	p, err := m.rec.PreviewFiles(context.Background(), files)
	if err != nil {
		t.Fatal(err)
	}
	if p.Refused != "" || p.Failed() || !p.Changed() {
		t.Fatalf("preview %+v", p)
	}
	for name, want := range map[string]apply.Action{"a": apply.Configured, "b": apply.Unchanged, "c": apply.Deleted, "d": apply.Created} {
		if got := planned(t, p, name); got.Action != want {
			t.Errorf("%s would be %s, want %s", name, got.Action, want)
		}
	}
	if diff := planned(t, p, "a").Diff; !strings.Contains(diff, `-  k: "1"`) || !strings.Contains(diff, `+  k: "2"`) {
		t.Errorf("the difference of a is\n%s", diff)
	}
	if len(p.Files) != 1 || !strings.Contains(p.Files[0].Diff, "+  name: other") {
		t.Errorf("settings: %+v", p.Files)
	}
	if after := m.api.Paths(); strings.Join(after, " ") != strings.Join(before, " ") || m.value("a") != "1" {
		t.Errorf("the cluster has changed: %v", after)
	}
	head, err := m.rec.PreviewRevision(context.Background(), m.Head())
	if err != nil || head.Changed() {
		t.Errorf("the accepted commit itself: %+v, %v", head, err)
	}
	if _, err := m.rec.PreviewRevision(context.Background(), strings.Repeat("0", 40)); err == nil || !strings.Contains(err.Error(), "has no commit") {
		t.Errorf("an unknown commit: %v", err)
	}
}

func TestPreviewSaysWhyARevisionWouldBeRefused(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	p, err := m.rec.PreviewFiles(context.Background(), fstest.MapFS{
		"clusters/default/cluster.yaml": &fstest.MapFile{Data: []byte("apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: x\nspec:\n  netwrk: {}\n")},
	})
	if err != nil || !p.Failed() || !strings.Contains(p.Refused, "cluster.yaml:6: spec.netwrk: unknown field") {
		t.Fatalf("preview %+v, %v", p, err)
	}
}

func TestHistoryTracesAndMetricsOfACommit(t *testing.T) {
	m := newMachine(t)
	spans := tracetest.NewSpanRecorder()
	m.cfg.Tracing = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	m.start()
	m.untilReady()
	first := m.Head()
	m.Write("clusters/default/a.yaml", strings.NewReplacer("%s", "a", "%q", `"2"`).Replace(manifest))
	m.Commit(m.alice, "second")
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
	m.untilReady()

	check := func() {
		t.Helper()
		entries := m.rec.History(0)
		if len(entries) != 2 || entries[0].Commit != m.Head() || entries[0].From != first || entries[1].Commit != first {
			t.Fatalf("history %+v", entries)
		}
		e := entries[0]
		if e.Outcome != history.Ready || e.Signer != "alice" || e.Changes == nil || e.Changes.Configured != 1 || e.Changes.Objects[0] != "configured ConfigMap default/a" {
			t.Errorf("entry %+v, changes %+v", e, e.Changes)
		}
		if len(e.Steps) == 0 || e.AppliedAt.Before(e.AcceptedAt) || e.EndedAt.Before(e.AppliedAt) {
			t.Errorf("steps %+v of %+v", e.Steps, e)
		}
	}
	check()

	names := map[string]int{}
	for _, s := range spans.Ended() {
		names[s.Name()]++
	}
	for _, name := range []string{"commit", "fetch", "verify", "validate", "build", "apply", "health"} {
		if names[name] != 2 {
			t.Errorf("%d spans %q, want one per commit: %v", names[name], name, names)
		}
	}

	families, err := m.rec.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		found[f.GetName()] = true
		if f.GetName() == "bothy_commit_info" && f.GetMetric()[0].GetLabel()[0].GetValue() != m.Head() {
			t.Errorf("bothy_commit_info %v", f.GetMetric())
		}
	}
	for _, name := range []string{"bothy_commit_info", "bothy_objects", "bothy_site_ready", "bothy_commit_ready_seconds", "bothy_git_events_total"} {
		if !found[name] {
			t.Errorf("%s is missing", name)
		}
	}

	t0 := time.Now()
	m.kill()
	t.Log("kill", time.Since(t0))
	m.start()
	m.untilReady()
	t.Log("ready", time.Since(t0))
	check()
}

func TestRestartKnowsTheAcceptedCommitAtOnce(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.kill()
	rec, err := reconciler.New(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if a := rec.Status().Accepted; a == nil || a.Commit != m.Head() || a.Signer != "alice" {
		t.Errorf("before anything runs the accepted commit is %+v", a)
	}
}
