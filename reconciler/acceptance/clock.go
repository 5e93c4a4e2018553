package acceptance

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Clock tells the time at which keys must be valid. Many machines start with a
// clock that stands years back, until they reach a time server or for ever; an
// expired key must not come back to life with it. So the clock never shows a
// time before the program was built, nor before one that it showed earlier,
// power cuts included.
type Clock struct {
	dir string
	rtc func() time.Time

	mu    sync.Mutex
	seen  time.Time // the latest time known to have passed
	saved time.Time
}

const (
	clockFile = "clock.json"
	// saveEvery bounds how often the file is written: flash wears out, and
	// validity is counted in days.
	saveEvery = time.Hour
)

type clockRecord struct {
	LastSeen time.Time `json:"lastSeen"`
}

// OpenClock reads the last time seen from dir. built is when the program was
// built; zero if that is not known. rtc is time.Now outside of tests.
func OpenClock(dir string, built time.Time, rtc func() time.Time) (*Clock, error) {
	c := &Clock{dir: dir, rtc: rtc, seen: built}
	var r clockRecord
	path := filepath.Join(dir, clockFile)
	err := durable.ReadJSON(path, &r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the last time seen: %w; set the machine's clock, then delete %s", err, path)
	}
	c.saved = r.LastSeen
	c.Saw(r.LastSeen)
	return c, nil
}

// Saw says that t has passed, such as the time of an earlier acceptance.
func (c *Clock) Saw(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.seen) {
		c.seen = t
	}
}

// Now returns the machine's time, or the latest time seen if that is later.
func (c *Clock) Now() time.Time {
	now := c.rtc()
	c.Saw(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Behind returns by how much the machine's clock is behind the latest time
// seen: zero, or what somebody should look at.
func (c *Clock) Behind() time.Duration {
	now := c.rtc()
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.seen.Sub(now))
}

// Save makes the latest time seen durable, if it is an hour or more later than
// the one on disk.
func (c *Clock) Save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen.Sub(c.saved) < saveEvery {
		return nil
	}
	if err := durable.WriteJSON(filepath.Join(c.dir, clockFile), clockRecord{LastSeen: c.seen.UTC()}, 0o600); err != nil {
		return fmt.Errorf("record the last time seen: %w", err)
	}
	c.saved = c.seen
	return nil
}
