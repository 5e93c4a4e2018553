package acceptance_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/reconciler/acceptance"
)

func TestClockNeverGoesBack(t *testing.T) {
	dir := t.TempDir()
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rtc := time.Unix(0, 0) // a machine without a battery
	open := func() *acceptance.Clock {
		t.Helper()
		c, err := acceptance.OpenClock(dir, built, func() time.Time { return rtc })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	if !c.Now().Equal(built) || c.Behind() != built.Sub(rtc) {
		t.Errorf("before anything was seen it is %s, %s behind", c.Now(), c.Behind())
	}
	rtc = built.AddDate(0, 6, 0) // a time server was reached
	if !c.Now().Equal(rtc) || c.Behind() != 0 {
		t.Errorf("it is %s, %s behind", c.Now(), c.Behind())
	}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	last := rtc
	rtc = time.Unix(0, 0) // power cut
	if c = open(); !c.Now().Equal(last) {
		t.Errorf("after a restart it is %s, want %s", c.Now(), last)
	}
	c.Saw(last.Add(time.Minute))
	if !c.Now().Equal(last.Add(time.Minute)) {
		t.Errorf("it is %s", c.Now())
	}
}

func TestClockSparesTheDisk(t *testing.T) {
	dir := t.TempDir()
	rtc := time.Now()
	c, err := acceptance.OpenClock(dir, time.Time{}, func() time.Time { return rtc })
	if err != nil {
		t.Fatal(err)
	}
	write := func(after time.Duration) bool {
		t.Helper()
		path := filepath.Join(dir, "clock.json")
		os.Remove(path)
		rtc = rtc.Add(after)
		c.Now()
		if err := c.Save(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(path)
		return err == nil
	}
	if !write(0) || write(time.Minute) || !write(time.Hour) {
		t.Error("it is written when nothing changed, or not written when it did")
	}
}

func TestDamagedClockIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "clock.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := acceptance.OpenClock(dir, time.Time{}, time.Now); err == nil || !strings.Contains(err.Error(), "delete "+dir) {
		t.Errorf("error %v", err)
	}
}
