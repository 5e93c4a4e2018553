package settings

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// fake is a part that remembers what the machine is set to.
type fake struct {
	now    string
	refuse string
}

func (*fake) Name() string { return "fake" }

func (p *fake) Apply(_ context.Context, _, to *Settings) error {
	p.now = to.Hostname
	if to.Hostname == p.refuse && p.refuse != "" {
		return errors.New("no")
	}
	return nil
}

func named(name string) Settings { return Settings{Hostname: name} }

// life is one run of an engine on a directory.
type life struct {
	*Engine
	*fake
	end func()
}

func begin(t *testing.T, dir string) *life {
	t.Helper()
	part := &fake{refuse: "impossible"}
	e, err := Open(Config{Dir: dir, Parts: []Part{part}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	e.Start(ctx, part)
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	l := &life{Engine: e, fake: part}
	ended := false
	l.end = func() {
		if cancel(); !ended {
			ended = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(l.end)
	return l
}

func (l *life) until(t *testing.T, what string, holds func(Status) bool) Status {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		st, changed := l.Status()
		if holds(st) {
			return st
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waiting for %s: %+v", what, st)
		}
	}
}

func (l *life) propose(t *testing.T, commit string, s Settings) {
	t.Helper()
	l.Propose(t.Context(), Proposal{Commit: commit, Settings: s, Needs: []string{"API"}})
}

func applied(st Status) bool { return st.Trial != nil && st.Trial.Applied }

func TestSettingsCountOnceTheyAreConfirmed(t *testing.T) {
	dir := t.TempDir()
	l := begin(t, dir)
	l.propose(t, "c1", named("one"))
	st := l.until(t, "the trial", applied)
	if l.now != "one" || st.InForce.Commit != "" || st.RevertAt == nil || !slices.Equal(st.Trial.Needs, []string{"API"}) {
		t.Fatalf("%+v, the machine is %q", st, l.now)
	}
	other := named("two")
	l.Confirm(t.Context(), Hash(&other)) // of something else
	wanted := named("one")
	l.Confirm(t.Context(), Hash(&wanted))
	l.until(t, "the confirmation", func(st Status) bool { return st.Trial == nil && st.InForce.Commit == "c1" })
	l.end()
	if again := begin(t, dir); again.now != "one" {
		t.Errorf("after a restart the machine is %q", again.now)
	}
}

func TestSettingsThatDoNotProveThemselvesAreUndone(t *testing.T) {
	dir := t.TempDir()
	l := begin(t, dir)
	s := named("lost")
	s.RevertAfter = v1alpha1.Duration{Duration: 50 * time.Millisecond}
	l.propose(t, "c1", s)
	st := l.until(t, "the end of the trial", func(st Status) bool { return st.Undone != nil && st.Trial == nil })
	if l.now != "" || st.Undone.Commit != "c1" || !strings.Contains(st.Undone.Reason, "API") {
		t.Fatalf("%+v, the machine is %q", st, l.now)
	}
	// Neither at once nor after a restart is it tried again.
	l.propose(t, "c2", s)
	l.end()
	l = begin(t, dir)
	l.propose(t, "c2", s)
	l.Confirm(t.Context(), "no such")
	if st, _ := l.Status(); st.Trial != nil || st.Undone == nil || l.now != "" {
		t.Fatalf("%+v, the machine is %q", st, l.now)
	}
	// Somebody wants it to be.
	l.Forget(t.Context())
	l.propose(t, "c2", s)
	l.until(t, "another trial", func(st Status) bool { return st.Trial != nil })
}

func TestWhatCannotBeAppliedIsUndoneAtOnce(t *testing.T) {
	l := begin(t, t.TempDir())
	l.propose(t, "c1", named("impossible"))
	st := l.until(t, "the end of the trial", func(st Status) bool { return st.Undone != nil && st.Trial == nil })
	if l.now != "" || st.Undone.Reason != "fake: no" {
		t.Errorf("%+v, the machine is %q", st.Undone, l.now)
	}
	// The next commit is another matter.
	l.propose(t, "c2", named("possible"))
	l.until(t, "the trial", applied)
}

// The power goes while settings are on trial: the old ones are in force, once they are tried
// again, and after the second time never.
func TestALossOfPowerEndsATrial(t *testing.T) {
	dir := t.TempDir()
	for i := range maxInterruptions {
		l := begin(t, dir)
		if l.now != "" {
			t.Fatalf("start %d: the machine is %q", i, l.now)
		}
		l.propose(t, "c1", named("fatal"))
		l.until(t, "the trial", applied)
		l.end()
	}
	l := begin(t, dir)
	l.propose(t, "c1", named("fatal"))
	st, _ := l.Status()
	if l.now != "" || st.Trial != nil || st.Undone == nil || !strings.Contains(st.Undone.Reason, "twice") {
		t.Errorf("%+v, the machine is %q", st, l.now)
	}
}

// The power goes between any two writes: what is found is what was in force before, or
// after, and the trial ends.
func TestEveryStateOnDiskIsOne(t *testing.T) {
	one, two := named("one"), named("two")
	inForce, trial := InForce{Settings: one, Commit: "c1"}, Trial{Settings: two, Commit: "c2"}
	after, undone := InForce{Settings: two, Commit: "c2"}, Undone{Hash: Hash(&two), Commit: "c2", Reason: "x"}
	for name, c := range map[string]struct {
		files map[string]any
		want  string
		tried bool
	}{
		"on trial":              {map[string]any{"in-force": inForce, "trial": trial}, "one", true},
		"confirmed, not erased": {map[string]any{"in-force": after, "trial": trial}, "two", false},
		"undone, not erased":    {map[string]any{"in-force": inForce, "trial": trial, "undone": undone}, "one", false},
		"in force":              {map[string]any{"in-force": inForce}, "one", false},
		"nothing":               {nil, "", false},
	} {
		dir := t.TempDir()
		s := store{dir}
		for file, v := range c.files {
			if err := s.write(filepath.Join(dir, file+".json"), v); err != nil {
				t.Fatal(err)
			}
		}
		l := begin(t, dir)
		_, err := os.Stat(s.trialFile())
		if l.now != c.want || (err == nil) != c.tried || (l.retry != nil) != c.tried {
			t.Errorf("%s: the machine is %q, a trial is left: %v", name, l.now, err == nil)
		}
	}
}

func TestNewerSettingsTakeThePlaceOfThoseOnTrial(t *testing.T) {
	l := begin(t, t.TempDir())
	l.propose(t, "c1", named("one"))
	l.until(t, "the first trial", applied)
	l.propose(t, "c2", named("two"))
	l.until(t, "the second trial", func(st Status) bool { return applied(st) && st.Trial.Commit == "c2" })
	l.propose(t, "c3", Settings{})
	st := l.until(t, "the end of both", func(st Status) bool { return st.Trial == nil })
	if l.now != "" || st.Undone != nil {
		t.Errorf("%+v, the machine is %q", st, l.now)
	}
}

func TestADamagedRecordIsNotPassedOver(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in-force.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in-force.json") {
		t.Errorf("%v", err)
	}
}

func TestAClientSeesWhatTheEngineDoes(t *testing.T) {
	l := begin(t, t.TempDir())
	socket := filepath.Join(t.TempDir(), "s")
	if err := l.Serve(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	c := NewClient(socket, l.cfg.Log)
	go func() { _ = c.Run(t.Context()) }()
	until := func(what string, holds func(*Status) bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			st, changed := c.Status()
			if st != nil && holds(st) {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("waiting for %s: %+v", what, st)
			}
		}
	}
	until("an answer", func(*Status) bool { return true })
	s := named("far")
	c.Propose(t.Context(), Proposal{Commit: "c1", Settings: s})
	until("the trial", func(st *Status) bool { return applied(*st) })
	c.Confirm(t.Context(), Hash(&s))
	until("the confirmation", func(st *Status) bool { return st.InForce.Commit == "c1" })
}
