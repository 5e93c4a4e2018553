package events

import (
	"crypto/sha256"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// seriesEnd is how long after its last occurrence an event is still the
	// same one.
	seriesEnd = 5 * time.Minute
	// rewrite is how often a Kubernetes Event is written again to raise its
	// count.
	rewrite = time.Minute
	// maxSeries bounds what is remembered.
	maxSeries = 1024
)

// identity is a digest of what makes two events the same.
type identity [sha256.Size]byte

func identify(e Event) identity {
	o := e.InvolvedObject
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q", o.Kind, o.Namespace, o.Name, o.UID, e.Severity, e.Reason, e.Message))
}

// series is one Kubernetes Event and how often it occurred.
type series struct {
	object types.NamespacedName
	last   time.Time // occurrence

	count   int32     // occurrences
	written int32     // occurrences that the API server knows of
	wrote   time.Time // when it was told
}

// owed reports whether the API server has an older count.
func (s *series) owed() bool { return s.count != s.written }

// memory holds the series that may go on.
type memory map[identity]*series

// expire forgets what ended, and the oldest if there are too many.
func (m memory) expire(now time.Time) {
	for id, s := range m {
		if now.Sub(s.last) > seriesEnd && !s.owed() {
			delete(m, id)
		}
	}
	for len(m) > maxSeries {
		var oldest identity
		var at time.Time
		for id, s := range m {
			if at.IsZero() || s.last.Before(at) {
				oldest, at = id, s.last
			}
		}
		delete(m, oldest)
	}
}

// due returns a series whose count may be written now, and else how long until
// the next may; zero if none is owed.
func (m memory) due(now time.Time) (*series, time.Duration) {
	var wait time.Duration
	for _, s := range m {
		if !s.owed() {
			continue
		}
		left := rewrite - now.Sub(s.wrote)
		if left <= 0 {
			return s, 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return nil, wait
}
