package reconciler

import (
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/flux/boot"
)

// marked is a reconciler that has accepted, and applied, a commit.
func marked(t *testing.T) *Reconciler {
	t.Helper()
	config := &v1alpha1.BootConfig{Repository: v1alpha1.RepositorySpec{URL: "https://git.example.org/site.git", Path: "clusters/default"}, Trust: v1alpha1.BootTrust{None: true}}
	config.Default()
	r, err := New(Config{StateDir: t.TempDir(), Boot: config})
	if err != nil {
		t.Fatal(err)
	}
	r.board = newBoard(Status{Phase: PhaseReady, Accepted: &AcceptedStatus{Commit: "abc"}, Applied: &AppliedStatus{Commit: "abc"}})
	return r
}

func TestMarkMachine(t *testing.T) {
	r := marked(t)
	problem := MachineProblem{Commit: "abc", Reason: "OSUpdateFailed", Message: "operating system: it hung"}
	for range 2 {
		r.MarkMachine("os", &problem)
	}
	st := r.Status()
	if len(st.Machine) != 1 || st.Machine[0] != problem {
		t.Errorf("%+v", st.Machine)
	}
	if len(st.Events) != 1 || !st.Events[0].Warning || st.Events[0].Commit != "abc" {
		t.Errorf("%+v", st.Events)
	}
	if sync := (fluxRoot{r}).Sync(); sync.Phase != boot.Failed || sync.Reason != problem.Reason || sync.Message != problem.Message {
		t.Errorf("%+v", sync)
	}
	// Another commit is accepted: the mark is the old one's.
	r.board.update(func(s *Status) { s.Accepted = &AcceptedStatus{Commit: "def"} })
	if sync := (fluxRoot{r}).Sync(); sync.Phase != boot.Ready {
		t.Errorf("%+v", sync)
	}
	r.MarkMachine("settings", &MachineProblem{Commit: "def", Reason: "SettingsUndone"})
	r.MarkMachine("os", nil)
	if st := r.Status(); len(st.Machine) != 1 || st.Machine[0].Reason != "SettingsUndone" {
		t.Errorf("%+v", st.Machine)
	}
	r.MarkMachine("settings", nil)
	if st := r.Status(); len(st.Machine) != 0 {
		t.Errorf("%+v", st.Machine)
	}
}
