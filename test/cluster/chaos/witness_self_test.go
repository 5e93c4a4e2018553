package chaos

import "testing"

// The witness itself notices what it is there for, and nothing else.
func TestWitnessNotices(t *testing.T) {
	type event struct {
		kind, name, round string
	}
	for _, c := range []struct {
		name   string
		newest int
		events []event
		wrongs int
	}{
		{"all is well", 7, []event{{"ADDED", "round-2", "2"}, {"ADDED", "keep-1", "1"}, {"DELETED", "round-2", "2"}, {"MODIFIED", "keep-1", "7"}}, 0},
		{"pruned too early", 6, []event{{"ADDED", "round-2", "2"}, {"DELETED", "round-2", "2"}}, 1},
		{"a keeper deleted", 90, []event{{"ADDED", "keep-1", "1"}, {"DELETED", "keep-1", "1"}}, 1},
		{"pruned and back", 7, []event{{"DELETED", "round-2", "2"}, {"ADDED", "round-2", "2"}}, 1},
		{"back to an older commit", 7, []event{{"ADDED", "keep-1", "7"}, {"MODIFIED", "keep-1", "1"}}, 1},
		{"nonsense", 7, []event{{"ADDED", "keep-1", ""}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &witness{site: &site{pushed: make([]string, c.newest+1)}, round: map[string]int{}, deleted: map[string]bool{}, expected: map[string]int{}}
			for _, e := range c.events {
				var m configMap
				m.Metadata.Name, m.Data.Round = e.name, e.round
				w.note(e.kind, m)
			}
			if len(w.wrongs) != c.wrongs {
				t.Errorf("%d wrongs were expected: %q", c.wrongs, w.wrongs)
			}
		})
	}
}

// Each round wants what the account says: the keepers, one of them new, and the
// last few of the others.
func TestWanted(t *testing.T) {
	at := wanted(23)
	if len(at) != keepers+lifetime || at["keep-3"] != 23 || at["keep-2"] != 22 || at["keep-4"] != 14 || at["round-19"] != 19 || at["round-23"] != 23 {
		t.Errorf("round 23 wants %v", at)
	}
	if start := wanted(0); len(start) != keepers+1 || start["keep-9"] != 0 {
		t.Errorf("round 0 wants %v", start)
	}
}
