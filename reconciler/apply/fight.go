package apply

import "time"

// Fight says that somebody else sets an object to something else again and
// again. The engine then undoes it less and less often, so that the two do not
// keep the cluster busy.
type Fight struct {
	ID ID `json:"object"`
	// Manager is the field manager of the other side; empty if not known.
	Manager string `json:"manager,omitempty"`
	// Undone counts what was undone since the fight began, Next is when it is
	// undone again.
	Undone int       `json:"undone"`
	Next   time.Time `json:"next"`
}

const (
	// fightAfter undos within fightWindow make a fight.
	fightAfter  = 5
	fightWindow = time.Minute
	// The first pause in a fight; it doubles up to the longest.
	fightPauseMin = time.Second
	fightPauseMax = time.Minute
)

// fight is what is known of undos of one object.
type fight struct {
	manager   string
	undone    int // since the last quiet window
	last      time.Time
	notBefore time.Time
}

// undo counts one undo.
func (o *object) undo(d *Drift, now time.Time) *fight {
	if o.fight == nil || now.Sub(o.fight.last) > fightWindow+o.fight.pause() {
		o.fight = &fight{}
	}
	f := o.fight
	f.undone++
	f.last = now
	if d.Manager != "" {
		f.manager = d.Manager
	}
	if pause := f.pause(); pause > 0 {
		f.notBefore = now.Add(pause)
	}
	d.Undone = f.undone
	return f
}

// pause is how long to wait before the next undo.
func (f *fight) pause() time.Duration {
	if f.undone < fightAfter {
		return 0
	}
	return min(fightPauseMin<<min(f.undone-fightAfter, 10), fightPauseMax)
}

// resting reports whether an undo has to wait.
func (o *object) resting(now time.Time) bool {
	return o.fight != nil && o.noticed != nil && o.applied == o.digest && now.Before(o.fight.notBefore)
}
