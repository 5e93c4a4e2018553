package attack_test

import (
	"strings"
	"testing"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler"
)

// attack is one row: what an attacker pushes, and how it is refused.
type attack struct {
	name string
	// prepare changes the repository before the machine starts; it may be nil.
	// What it leaves on the branch is the legitimate state.
	prepare func(*world)
	// try pushes. With legit set it does the same thing in the way that is
	// allowed.
	try func(w *world, legit bool)

	// rule refuses it, and the problem names all of says. class refines a refusal
	// by signature. An attack without a rule already fails to be fetched.
	rule  string
	class signers.Class
	says  []string
	// firstBoot has the machine start after the attack instead of before.
	firstBoot bool
}

// TestAttacks runs every row against a machine, and its legitimate twin against
// another.
func TestAttacks(t *testing.T) {
	p := newPeople(t)
	for field, rows := range map[string][]attack{
		"signature": signatures, "certificate": certificates, "history": histories,
		"trust root": trustRoots, "rules": ruleRows, "content": contents, "first boot": firstBoots,
	} {
		t.Run(field, func(t *testing.T) {
			for _, a := range rows {
				t.Run(a.name, func(t *testing.T) {
					t.Run("refused", func(t *testing.T) { a.refused(newWorld(t, p)) })
					t.Run("legitimate twin", func(t *testing.T) { a.accepted(newWorld(t, p)) })
				})
			}
		})
	}
}

// begin brings the machine to where the attack finds it.
func (a attack) begin(w *world) {
	if a.prepare != nil {
		a.prepare(w)
		w.base = w.Head()
	}
	if a.firstBoot {
		w.base = ""
		return
	}
	w.start()
	w.runs(w.base)
}

// push makes the attempt and has the machine look at it.
func (a attack) push(w *world, legit bool) string {
	a.try(w, legit)
	if a.firstBoot {
		w.start()
	} else {
		w.rec.Trigger()
	}
	return strings.TrimSpace(w.Git("rev-parse", "refs/heads/main"))
}

func (a attack) accepted(w *world) {
	w.t.Helper()
	a.begin(w)
	w.runs(a.push(w, true))
}

func (a attack) refused(w *world) {
	w.t.Helper()
	a.begin(w)
	var before string
	if !a.firstBoot {
		before = w.record()
	}
	head := a.push(w, false)
	s := w.until("the refusal of "+head, func(s reconciler.Status) bool {
		if s.Accepted != nil && s.Accepted.Commit == head && head != w.base {
			w.t.Fatalf("ACCEPTED %s, signed by %q", head, s.Accepted.Signer)
		}
		if a.rule == "" {
			return s.Source.LastError != ""
		}
		return s.Rejected != nil && s.Rejected.Commit == head
	})
	a.explained(w, s)
	a.unmoved(w, s, before)

	// A restart does not forget what was refused, nor what was accepted.
	w.kill()
	w.start()
	s = w.until("the refusal after a restart", func(s reconciler.Status) bool {
		return s.Rejected != nil || a.rule == "" && s.Source.LastError != ""
	})
	a.unmoved(w, s, before)
}

// explained checks that the refusal has its own reason.
func (a attack) explained(w *world, s reconciler.Status) {
	w.t.Helper()
	text := s.Source.LastError
	if a.rule != "" {
		r := s.Rejected
		if text = r.Problem; r.Rule != a.rule || a.class != "" && r.Class != a.class || r.Remedy == "" {
			w.t.Errorf("refused by rule %q (class %q), want %q (class %q); remedy %q", r.Rule, r.Class, a.rule, a.class, r.Remedy)
		}
	}
	for _, want := range a.says {
		if !strings.Contains(text, want) {
			w.t.Errorf("the problem is %q, want it to name %q", text, want)
		}
	}
	w.t.Logf("refused: %s", text)
}

// unmoved checks that the site runs what it ran.
func (a attack) unmoved(w *world, s reconciler.Status, before string) {
	w.t.Helper()
	snapshot, _ := w.rec.Accepted()
	switch {
	case a.firstBoot:
		if s.Accepted != nil || snapshot != nil {
			w.t.Errorf("something was accepted: %+v", s.Accepted)
		}
		return
	case s.Accepted == nil || s.Accepted.Commit != w.base || snapshot.Commit != w.base:
		w.t.Errorf("the site moved to %+v", s.Accepted)
	}
	if w.record() != before {
		w.t.Error("the record of the accepted commit changed")
	}
}
