package apply

import (
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// notice is what the hub saw when an object drifted.
type notice struct {
	at      time.Time
	gone    bool
	entries []metav1.ManagedFieldsEntry
}

// observe takes note of what the hub saw, and calls Notify if it gives the
// engine something to do.
func (e *Engine) observe(key ID, s sighting) {
	e.mu.Lock()
	wake := e.take(key, s)
	e.mu.Unlock()
	if wake {
		e.wake()
	}
}

// wake calls Notify unless it was called since the last Sync or Health.
func (e *Engine) wake() {
	e.mu.Lock()
	notify := e.o.Notify
	if e.woken || e.closed {
		notify = nil
	}
	e.woken = true
	e.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// attend says that the caller of Notify came.
func (e *Engine) attend() {
	e.mu.Lock()
	e.woken = false
	e.mu.Unlock()
}

// take is observe with mu held.
func (e *Engine) take(key ID, s sighting) (wake bool) {
	if r := e.leaving[key]; s.gone && r != nil {
		delete(e.leaving, key)
		e.o.Hub.untrack(r, key, false, e)
		wake = true
	}
	o := e.objects[key]
	if o == nil {
		o = e.extra[key]
	}
	switch {
	case o == nil:
		return wake
	case o.inFlight:
		o.early = &s // judged when the answer is there
		return wake
	}
	return e.judge(o, s) || wake
}

// judge decides what a sighting means for an object: nothing, drift, or that its
// health may have moved. It reports whether the engine has something to do.
func (e *Engine) judge(o *object, s sighting) bool {
	switch {
	case o.foreign:
		return e.moved(o, s)
	case o.known.uid == "":
		return e.precede(o, s)
	case s.version == o.known.version && !s.gone, older(s.version, o.known.version):
		return false // our own write, or older than it
	case s.gone:
		return e.drifted(o, s)
	case o.policy.ifNotPresent:
		return e.moved(o, s)
	}
	wasLeft := o.left
	o.left = s.left
	switch {
	case s.left:
		o.noticed = nil
		return !wasLeft
	case s.uid != o.known.uid, s.mark != o.known.mark && !o.onlyIgnored(s), s.usurped != o.known.usurped && !o.policy.merge:
		return e.drifted(o, s)
	}
	o.known.mark, o.known.usurped = s.mark, s.usurped
	return e.moved(o, s) || wasLeft
}

// precede takes note of an object that we did not send yet, or that is being
// deleted in order to be created anew. It reports whether it can be sent now and
// could not before.
func (e *Engine) precede(o *object, s sighting) bool {
	held := o.left || o.replacing && s.gone
	o.left, o.known.version = s.left && !s.gone, s.version
	if s.gone {
		o.known.version = ""
	}
	e.recall(o, s)
	return held && !o.left
}

func (e *Engine) drifted(o *object, s sighting) bool {
	at := time.Now()
	if o.noticed != nil {
		at = o.noticed.at
	}
	o.noticed = &notice{at: at, gone: s.gone, entries: s.entries}
	if s.gone {
		o.health = health{State: InProgress, Message: "was deleted by somebody else"}
	}
	return true
}

// moved takes note of a newer version, which matters if somebody waits for the
// object's health.
func (e *Engine) moved(o *object, s sighting) bool {
	if s.version == o.known.version && !s.gone {
		return false
	}
	o.moved = true
	return o.foreign || e.awaits(o) && e.counts(o) && !e.trivial(o)
}

// awaits reports whether the health of an object of the set counts.
func (e *Engine) awaits(o *object) bool {
	return e.o.Wait || slices.ContainsFunc(e.o.Extra, func(id ID) bool { return id.key() == o.id.key() })
}

// trivial reports whether the objects of a kind are as healthy as they will ever
// be once they exist.
func (e *Engine) trivial(o *object) bool {
	if e.rules.judges(o.id) {
		return false
	}
	switch o.id.Group {
	case rbacv1.GroupName:
		return true
	case "":
		return o.id.Kind == "ConfigMap" || o.id.Kind == "Secret" || o.id.Kind == "ServiceAccount"
	}
	return false
}

// later calls Notify after a while, if nothing does so before.
func (e *Engine) later(after time.Duration) {
	due := time.Now().Add(after)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.timer != nil && e.due.After(time.Now()) && e.due.Before(due) {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.due = due
	e.timer = time.AfterFunc(after, e.wake)
}

// track makes the hub watch an object whose kind is known.
func (e *Engine) track(o *object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	hub := e.o.Hub
	if hub == nil || e.closed || o.policy.skip || o.tracked == o.res {
		return
	}
	e.untrack(o)
	o.tracked = o.res
	seen := hub.track(o.res, o.id, o.foreign, e)
	if o.known.uid == "" && seen.uid != "" && !o.foreign {
		o.left, o.known.version = seen.left, seen.version
		e.recall(o, seen)
	}
}

// untrack ends the hub's interest in an object; mu is held.
func (e *Engine) untrack(o *object) {
	if o.tracked == nil {
		return
	}
	e.o.Hub.untrack(o.tracked, o.id, o.foreign, e)
	o.tracked = nil
}

// untrackAll ends the hub's interest in all objects; mu is held.
func (e *Engine) untrackAll() {
	for _, o := range e.objects {
		e.untrack(o)
	}
	for _, o := range e.extra {
		e.untrack(o)
	}
	for key, r := range e.leaving {
		e.o.Hub.untrack(r, key, false, e)
	}
	clear(e.leaving)
}
