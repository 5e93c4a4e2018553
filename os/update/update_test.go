package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/cuttest"
	"github.com/bothy-os/bothy/os/verity"
)

func writeFile(path, text string) error { return durable.WriteFile(path, []byte(text), 0o600) }

func standing(t *testing.T, u *Updater, want Standing, version string) Status {
	t.Helper()
	st, _ := u.Status()
	if st.Standing != want || st.Current.Version != version {
		t.Fatalf("standing %s with %s, not %s with %s", st.Standing, st.Current.Version, want, version)
	}
	return st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAGoodUpdateStays(t *testing.T) {
	one, two, three := build(t, "1"), build(t, "2"), build(t, "3")
	w := newWorld(t, one)
	u := w.boot()
	standing(t, u, Settled, "installed")
	for i, s := range []*system{two, three, two} {
		wanted, err := u.Check(s.digest)
		if !wanted || err != nil {
			t.Fatalf("%d: %v, %v", i, wanted, err)
		}
		must(t, w.start(u, s))
		must(t, u.Abandon()) // too late: the agent ends, because the machine starts again
		u = w.boot()
		st := standing(t, u, OnTrial, st(u).Current.Version)
		if st.Trial.Version != s.version || st.Trial.Phase != Started || st.Trial.Limit != time.Minute || string(st.Trial.Baseline) == "" {
			t.Errorf("%+v", st.Trial)
		}
		must(t, u.Wrote("etcd 3"))
		must(t, u.Commit())
		standing(t, u, Settled, s.version)
		if _, err := os.Stat(u.SnapshotDir()); !errors.Is(err, os.ErrNotExist) {
			t.Error("the snapshot stays")
		}
		u = w.boot()
		standing(t, u, Settled, s.version)
		if wanted, err := u.Check(s.digest); wanted || err != nil {
			t.Errorf("what runs is wanted again: %v", err)
		}
	}
	if w.next {
		t.Error("the firmware is still told something")
	}
}

func st(u *Updater) Status {
	s, _ := u.Status()
	return s
}

func TestOneThatSaysItFailedIsNotStartedAgain(t *testing.T) {
	one, two, three := build(t, "1"), build(t, "2"), build(t, "3")
	w := newWorld(t, one)
	u := w.boot()
	must(t, w.start(u, two))
	u = w.boot()
	must(t, u.Wrote("etcd 9"))
	must(t, u.GiveUp("the API is not ready"))
	u = w.boot()
	back := standing(t, u, Returned, "installed")
	if back.Trial.Wrote != "etcd 9" || back.Trial.Failure != "the API is not ready" {
		t.Errorf("%+v", back.Trial)
	}
	if _, err := os.Stat(filepath.Join(u.SnapshotDir(), "etcd")); err != nil {
		t.Error("there is nothing to go back to:", err)
	}
	// The power goes before what there was is back.
	u = w.boot()
	e, err := u.Settle()
	if err != nil || e.Again || e.Reason != "the API is not ready" || e.Trial.Commit != "c0ffee" {
		t.Fatalf("%+v, %v", e, err)
	}
	u = w.boot()
	_, err = u.Check(two.digest)
	var bad *BadError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "the API is not ready") {
		t.Errorf("it is wanted again: %v", err)
	}
	must(t, w.start(u, three))
	must(t, w.boot().Commit())
	u = w.boot()
	standing(t, u, Settled, "3")
	if _, err = u.Check(two.digest); !errors.As(err, &bad) {
		t.Error("a good update makes forget the bad one")
	}
	if known, err := u.Forgive(two.digest); !known || err != nil {
		t.Error(known, err)
	}
	if wanted, err := w.boot().Check(two.digest); !wanted || err != nil {
		t.Error("it is not forgiven", err)
	}
}

// A loss of power looks like a panic: the second time is enough.
func TestOneThatEndsWithoutAWordIsStartedTwice(t *testing.T) {
	for _, reached := range []Phase{Armed, Started} {
		one, two := build(t, "1"), build(t, "2")
		w := newWorld(t, one)
		u := w.boot()
		for attempt := 1; attempt <= maxAttempts; attempt++ {
			must(t, w.start(u, two))
			if got := st(u).Trial.Attempt; got != attempt {
				t.Errorf("attempt %d is number %d", attempt, got)
			}
			commandLine := w.firmware()
			if reached == Started {
				if _, err := NewTrials(w.dir, commandLine, w).Begin(); err != nil {
					t.Fatal(err)
				}
			}
			u = w.boot()
			standing(t, u, Returned, "installed")
			e, err := u.Settle()
			if err != nil || e.Again != (attempt < maxAttempts) {
				t.Fatalf("attempt %d: %+v, %v", attempt, e, err)
			}
		}
		if wanted, err := u.Check(two.digest); wanted || err == nil {
			t.Error("it is wanted a third time")
		}
	}
}

func TestProcessOneEndsATrialThatTakesTooLong(t *testing.T) {
	one, two := build(t, "1"), build(t, "2")
	w := newWorld(t, one)
	if limit, err := NewTrials(w.dir, w.firmware(), w).Begin(); limit != 0 || err != nil {
		t.Fatal(limit, err)
	}
	u := w.boot()
	must(t, w.start(u, two))
	trials := NewTrials(w.dir, w.firmware(), w)
	if limit, err := trials.Begin(); limit != time.Minute || err != nil {
		t.Fatal(limit, err)
	}
	if over, err := trials.Expire("not healthy within a minute"); !over || err != nil {
		t.Fatal(over, err)
	}
	u = w.boot()
	if e, err := u.Settle(); err != nil || e.Again || e.Reason != "not healthy within a minute" {
		t.Fatalf("%+v, %v", e, err)
	}
	// One that was found healthy in time stays.
	three := build(t, "3")
	must(t, w.start(u, three))
	commandLine := w.firmware()
	u, err := w.agent(commandLine)
	must(t, err)
	must(t, u.Commit())
	if over, err := NewTrials(w.dir, commandLine, w).Expire("late"); over || err != nil {
		t.Error(over, err)
	}
}

func TestAFirmwareThatDoesNotObey(t *testing.T) {
	w := newWorld(t, build(t, "1"))
	w.deaf = true
	two := build(t, "2")
	u := w.boot()
	must(t, w.start(u, two))
	u = w.boot()
	standing(t, u, Returned, "installed")
	e, err := u.Settle()
	if err != nil || e.Again || !strings.Contains(e.Reason, "firmware") || w.next {
		t.Fatalf("%+v, %v, %v", e, err, w.next)
	}
}

// The agent ends after the firmware was told, and the machine goes on: nothing has failed.
func TestTheMachineWasNotStartedAgain(t *testing.T) {
	w := newWorld(t, build(t, "1"))
	two := build(t, "2")
	commandLine := w.firmware()
	u, err := w.agent(commandLine)
	must(t, err)
	must(t, w.start(u, two))
	if err := u.Stage(context.Background(), build(t, "3").image()); err == nil {
		t.Error("what is about to be started is written over")
	}
	u, err = w.agent(commandLine)
	must(t, err)
	standing(t, u, Settled, "installed")
	if w.next {
		t.Error("it would be started")
	}
	if wanted, err := u.Check(two.digest); !wanted || err != nil {
		t.Error(wanted, err)
	}
}

func TestAFirmwareThatForgets(t *testing.T) {
	w := newWorld(t, build(t, "1"))
	w.forgetful = true
	u := w.boot()
	must(t, w.start(u, build(t, "2")))
	u = w.boot()
	standing(t, u, Returned, "installed")
	e, err := u.Settle()
	if err != nil || e.Again || !strings.Contains(e.Reason, "keeps no variables") {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestWhatCannotWorkIsNotWritten(t *testing.T) {
	one := build(t, "1")
	w := newWorld(t, one)
	u := w.boot()
	two := build(t, "2")
	for name, c := range map[string]struct {
		change func(*Image)
		want   string
	}{
		"no program": {func(i *Image) { i.BootFile = []byte("#!/bin/sh") }, "no program"},
		"cut off":    {func(i *Image) { i.BootFile = i.BootFile[:len(i.BootFile)/2] }, "cut off"},
		"another system": {func(i *Image) {
			i.BootFile = program(t, map[string]string{".linux": "", ".initrd": "", ".cmdline": "", ".osrel": "ID=debian"})
		}, "debian"},
		"no kernel": {func(i *Image) { i.BootFile = program(t, map[string]string{".osrel": "ID=bothy"}) }, ".linux"},
		"no root hash": {func(i *Image) {
			i.BootFile = program(t, map[string]string{".linux": "", ".initrd": "", ".cmdline": "quiet", ".osrel": "ID=bothy\nVARIANT_ID=vm"})
		}, "bothy.root="},
		"flavour":      {func(i *Image) { i.BootFile = build(t, "2", "VARIANT_ID=hardware").boot }, `flavour "hardware"`},
		"another root": {func(i *Image) { i.BootFile = build(t, "3").boot }, "not the one that its boot file names"},
		"large":        {func(i *Image) { i.RootSize = slotSize + 1 }, "slot"},
		"unsigned":     {func(*Image) { w.secure = true }, "Secure Boot"},
	} {
		img := two.image()
		c.change(&img)
		power := w.power.Steps
		err := u.Stage(context.Background(), img)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if w.power.Steps != power {
			t.Errorf("%s: something was written", name)
		}
		w.secure = false
	}
	if err := u.Stage(context.Background(), one.image()); !errors.Is(err, ErrRuns) {
		t.Errorf("what runs is written again: %v", err)
	}
	must(t, u.Adopt(one.digest))
	if wanted, err := w.boot().Check(one.digest); wanted || err != nil {
		t.Error(wanted, err)
	}
}

// The data is not that of the tree whose top is right: this is seen when it is read back,
// before anything refers to it.
func TestWhatTheDiskDoesNotGiveBackIsNotStarted(t *testing.T) {
	w := newWorld(t, build(t, "1"))
	u := w.boot()
	img := build(t, "2").image()
	broken := append([]byte(nil), build(t, "2").root...)
	broken[100*verity.BlockSize] ^= 1
	img.Root = strings.NewReader(string(broken))
	err := u.Stage(context.Background(), img)
	if err == nil || !strings.Contains(err.Error(), "gives back") {
		t.Fatal(err)
	}
	if err := u.Arm(Terms{Limit: time.Minute}); err == nil || w.next {
		t.Error("it would be started")
	}
	standing(t, w.boot(), Settled, "installed")
}

func TestTheFirmwareKeepsNothing(t *testing.T) {
	w := newWorld(t, build(t, "1"))
	u := w.boot()
	must(t, u.Stage(context.Background(), build(t, "2").image()))
	w.power = cuttest.NewPower(-1)
	failing := &unable{w}
	u.cfg.Machine = failing
	if err := u.Arm(Terms{Limit: time.Minute}); err == nil {
		t.Fatal("no error")
	}
	if tries := st(u).Trial.Phase; tries != Written || len(u.record.Attempts) != 0 {
		t.Errorf("%s, %v", tries, u.record.Attempts)
	}
	must(t, u.Abandon())
	standing(t, w.boot(), Settled, "installed")
}

type unable struct{ *world }

func (*unable) StartOnce() error { return errors.New("read-only") }
