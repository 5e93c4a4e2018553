package pki

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// clockFloor is a time known to be in the past: a clock that shows less has
// not been set since power-on.
var clockFloor = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	clockFile = "last-seen"
	// How often the last-seen time is written while running. Flash wears out;
	// half a day is precise enough for leaves that live for thirty.
	clockSaveEvery = 12 * time.Hour
)

// moment is one reading of the time.
type moment struct {
	// clock is what the machine shows. Peers on this machine check
	// certificates against it, right or wrong.
	clock time.Time
	// best is the best knowledge of the true time.
	best time.Time
}

// readTime returns the current moment. A plausible clock is believed; one that
// was never set is replaced by the last time seen on this machine.
func readTime(clock, lastSeen time.Time) moment {
	m := moment{clock: clock, best: clock}
	if clock.Before(clockFloor) {
		m.best = clockFloor
		if lastSeen.After(m.best) {
			m.best = lastSeen
		}
	}
	return m
}

// loadLastSeen returns the zero time when nothing usable is stored.
func loadLastSeen(dir string) time.Time {
	data, err := os.ReadFile(filepath.Join(dir, clockFile))
	if err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
	if err != nil {
		return time.Time{}
	}
	return t
}

func saveLastSeen(dir string, t time.Time) error {
	return durable.WriteFile(filepath.Join(dir, clockFile), []byte(t.UTC().Format(time.RFC3339)+"\n"), 0o600)
}
