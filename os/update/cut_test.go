package update

import (
	"errors"
	"testing"

	"github.com/bothy-os/bothy/os/cuttest"
)

// live runs the machine until it has what the commit asks for: each round is a start of it.
// Trials are what becomes of one: kept, or one of the ways to end.
func (w *world) live(wanted *system, trial func(*Updater) error) error {
	for range 8 {
		u, err := w.agent(w.firmware())
		if err != nil {
			return err
		}
		switch st, _ := u.Status(); st.Standing {
		case OnTrial:
			if err := trial(u); err != nil {
				return err
			}
			if st, _ := u.Status(); st.Standing == OnTrial {
				continue // it gave up, and starts the machine again
			}
		case Returned:
			if _, err := u.Settle(); err != nil {
				return err
			}
		}
		want, err := u.Check(wanted.digest)
		var bad *BadError
		if errors.As(err, &bad) || err == nil && !want {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.start(u, wanted); err != nil {
			return err
		}
	}
	return errors.New("the machine does not settle")
}

func good(u *Updater) error {
	if err := u.Wrote("etcd 3"); err != nil {
		return err
	}
	return u.Commit()
}

func failing(u *Updater) error { return u.GiveUp("not healthy") }

// The power goes at every single step of an update, and what was not on the disk yet is lost,
// or half of it. The machine starts each time, with a system that is whole, and ends up with
// the one that Git names.
func TestPowerIsLostAtEveryStep(t *testing.T) {
	one, two := build(t, "1"), build(t, "2")
	for name, c := range map[string]struct {
		trial func(*Updater) error
		want  string
	}{"good": {good, "2"}, "failing": {failing, "installed"}} {
		t.Run(name, func(t *testing.T) {
			whole := newWorld(t, one)
			must(t, whole.live(two, c.trial))
			steps := whole.power.Steps
			if steps < 30 {
				t.Fatalf("%d steps: nothing is tested", steps)
			}
			for cut := range steps {
				// All of what was not synced is lost, or half of it, or nothing.
				chance := []float64{0, 0.5, 1}[cut%3]
				w := newWorld(t, one)
				w.restart(1, cut)
				if err := w.live(two, c.trial); !errors.Is(err, cuttest.ErrCut) && !w.power.Gone() {
					t.Fatalf("cut %d of %d: %v", cut, steps, err)
				}
				w.lose(chance)
				if err := w.live(two, c.trial); err != nil {
					t.Fatalf("after cut %d of %d: %v", cut, steps, err)
				}
				u := w.boot()
				now := standing(t, u, Settled, c.want)
				if bad := len(now.Bad) > 0; bad != (c.want != "2") {
					t.Fatalf("cut %d of %d: bad are %+v", cut, steps, now.Bad)
				}
				if w.next {
					t.Fatalf("cut %d of %d: the firmware is still told something", cut, steps)
				}
			}
			t.Logf("%d steps", steps)
		})
	}
}
