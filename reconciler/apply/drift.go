package apply

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// What somebody did to an object: the values of Drift.Action.
const (
	DriftChanged = "changed"
	DriftDeleted = "deleted"
)

// Drift is a change by somebody else that was undone.
type Drift struct {
	ID     ID     `json:"object"`
	Action string `json:"action"`
	// Manager and Operation (Apply or Update) say who changed it, as far as the
	// API server recorded it: of a deletion nothing is, and of a removed field
	// seldom.
	Manager   string `json:"manager,omitempty"`
	Operation string `json:"operation,omitempty"`
	// Time is when the change was made, in seconds, or noticed if that is not
	// known.
	Time time.Time `json:"time"`
	// Fields are the paths that were changed, such as .spec.replicas; at most
	// maxFields.
	Fields []string `json:"fields,omitempty"`
	// UndoneAfter is the time from being noticed to being undone.
	UndoneAfter time.Duration `json:"undoneAfter"`
	// Undone counts how often the object was set back within fightWindow. From
	// fightAfter on the engine takes its time; see Fight.
	Undone int `json:"undone"`
}

const (
	// recentDrifts are kept for display.
	recentDrifts = 50
	maxFields    = 20
)

// driftLog counts drift and keeps the newest.
type driftLog struct {
	total  int
	recent []Drift
}

func (l *driftLog) add(d Drift) {
	l.total++
	if len(l.recent) == recentDrifts {
		l.recent = append(l.recent[:0], l.recent[1:]...)
	}
	l.recent = append(l.recent, d)
}

// Drifts returns how often drift was undone since the engine was made, and the
// newest of it, oldest first.
func (e *Engine) Drifts() (total int, recent []Drift) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drifts.total, slices.Clone(e.drifts.recent)
}

// describe says what happened to an object, from what was noticed and from the
// managed fields after it was set back. pure says that the object was set back
// to what it was, and nothing else changed.
func (n *notice) describe(id ID, created, pure bool, after []metav1.ManagedFieldsEntry) *Drift {
	d := &Drift{ID: id, Action: DriftChanged, Time: n.at, UndoneAfter: time.Since(n.at)}
	if created {
		d.Action = DriftDeleted
		return d
	}
	lost := fieldsOf(ourEntry(after)).Difference(fieldsOf(ourEntry(n.entries)))
	by, taken := author(n.entries, lost)
	switch {
	case by == nil && lost.Empty():
		// Somebody applied it under our name: another inventory.
		by = ourEntry(n.entries)
	case taken.Empty() && pure:
		taken = lost // removed, so that nobody owns them
	}
	if by != nil {
		d.Manager, d.Operation = by.Manager, string(by.Operation)
		if by.Time != nil {
			d.Time = by.Time.Time
		}
	}
	d.Fields = names(taken)
	return d
}

// author finds the newest entry that owns one of the lost fields, or fields that
// are not to be there at all, and these fields.
func author(entries []metav1.ManagedFieldsEntry, lost *fieldpath.Set) (by *metav1.ManagedFieldsEntry, taken *fieldpath.Set) {
	taken = &fieldpath.Set{}
	for i := range entries {
		entry := &entries[i]
		if isOurs(entry) {
			continue
		}
		fields := fieldsOf(entry)
		if !isUsurper(entry) {
			fields = fields.Intersection(lost)
		}
		if fields.Empty() {
			continue
		}
		taken = taken.Union(fields)
		if by == nil || entry.Time != nil && by.Time.Before(entry.Time) {
			by = entry
		}
	}
	return by, taken
}

// names lists the leaves of a set of fields.
func names(set *fieldpath.Set) []string {
	var out []string
	set.Leaves().Iterate(func(p fieldpath.Path) {
		if len(out) < maxFields {
			out = append(out, p.String())
		}
	})
	return out
}
