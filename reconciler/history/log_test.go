package history_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/reconciler/history"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, path string) *history.Log {
	t.Helper()
	l, err := history.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestHistorySurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	l := open(t, path)
	must(t, l.Accepted(history.Entry{Commit: "a", Subject: "first", Signer: "alice", AcceptedAt: noon}))
	changes := &history.Changes{}
	changes.Add("created", "ConfigMap default/a")
	changes.Add("unchanged", "ConfigMap default/b")
	must(t, l.Progress(history.Entry{Commit: "a", AppliedAt: noon.Add(time.Second), Changes: changes}))
	must(t, l.Progress(history.Entry{Commit: "a", Outcome: history.Ready, EndedAt: noon.Add(2 * time.Second)}))
	must(t, l.Accepted(history.Entry{Commit: "b", From: "a", AcceptedAt: noon.Add(time.Minute)}))

	for _, l := range []*history.Log{l, open(t, path)} {
		got := l.Entries(0)
		if len(got) != 2 || got[0].Commit != "b" || got[0].From != "a" || got[0].Outcome != "" {
			t.Fatalf("entries %+v", got)
		}
		a := got[1]
		if a.Signer != "alice" || a.Outcome != history.Ready || a.EndedAt.Sub(a.AppliedAt) != time.Second || a.Changes.Created != 1 || a.Changes.Unchanged != 1 || len(a.Changes.Objects) != 1 {
			t.Fatalf("entry %+v, changes %+v", a, a.Changes)
		}
	}
}

func TestRepeatedProgressIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	l := open(t, path)
	must(t, l.Accepted(history.Entry{Commit: "a", AcceptedAt: noon}))
	end := history.Entry{Commit: "a", Outcome: history.Degraded, Message: "no", EndedAt: noon}
	must(t, l.Progress(end))
	before, _ := os.ReadFile(path)
	must(t, l.Progress(end))
	must(t, l.Progress(history.Entry{Commit: "never accepted", Outcome: history.Ready}))
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Fatalf("the file grew to %s", after)
	}
}

func TestTornLineIsSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	l := open(t, path)
	must(t, l.Accepted(history.Entry{Commit: "a", AcceptedAt: noon}))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(`{"commit":"b","subj`)
	must(t, err)
	must(t, f.Close())
	l = open(t, path)
	must(t, l.Accepted(history.Entry{Commit: "c", AcceptedAt: noon}))
	if got := open(t, path).Entries(0); len(got) != 2 || got[0].Commit != "c" || got[1].Commit != "a" {
		t.Fatalf("entries %+v", got)
	}
}

func TestFileIsKeptShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	l := open(t, path)
	for i := range 1500 {
		must(t, l.Accepted(history.Entry{Commit: fmt.Sprint(i), AcceptedAt: noon}))
	}
	data, err := os.ReadFile(path)
	must(t, err)
	if n := strings.Count(string(data), "commit\""); n > 1001 {
		t.Errorf("the file holds %d commits", n)
	}
	if got := open(t, path).Entries(1); got[0].Commit != "1499" {
		t.Errorf("the newest is %s", got[0].Commit)
	}
}
