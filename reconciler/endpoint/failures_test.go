package endpoint

import (
	"fmt"
	"testing"
	"time"
)

func TestFailures(t *testing.T) {
	f := newFailures()
	now := time.Now()
	f.now = func() time.Time { return now }
	for range failuresAllowed {
		if f.tooMany("2001:db8::1") {
			t.Fatal("turned away too early")
		}
		f.add("2001:db8::1")
	}
	if !f.tooMany("2001:db8::2") {
		t.Error("the neighbour in the same network may go on guessing")
	}
	if f.tooMany("2001:db8:0:1::1") || f.tooMany("192.0.2.1") {
		t.Error("somebody else is turned away")
	}
	if now = now.Add(failurePause); f.tooMany("2001:db8::1") {
		t.Error("never forgiven")
	}
	for i := range 2 * maxWatched {
		f.add(fmt.Sprintf("10.%d.%d.1", i>>8, i&0xff))
	}
	if len(f.sources) > maxWatched {
		t.Errorf("%d addresses are remembered", len(f.sources))
	}
}
