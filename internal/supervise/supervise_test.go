package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// recorder notes the order in which things happen.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
}

func (r *recorder) component(name string, after ...string) Component {
	return Component{Name: name, After: after, Run: func(ctx context.Context, ready func()) error {
		r.add("start " + name)
		ready()
		<-ctx.Done()
		r.add("stop " + name)
		return nil
	}}
}

func run(t *testing.T, s *Supervisor) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func mustNew(t *testing.T, cs ...Component) *Supervisor {
	t.Helper()
	s, err := New(quiet, cs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Supervisor) state(name string) Status {
	for _, st := range s.Status() {
		if st.Name == name {
			return st
		}
	}
	return Status{}
}

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		s := mustNew(t, r.component("c", "b"), r.component("a"), r.component("b", "a"))
		stop := run(t, s)
		if err := s.WaitReady(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := []string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}
		if !slices.Equal(r.seen, want) {
			t.Errorf("got %v", r.seen)
		}
		for _, st := range s.Status() {
			if st.State != Stopped {
				t.Errorf("%s is %s", st.Name, st.State)
			}
		}
	})
}

func TestRestartsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		s := mustNew(t, Component{Name: "flaky", Run: func(ctx context.Context, ready func()) error {
			starts = append(starts, time.Now())
			switch len(starts) {
			case 1, 2:
				return fmt.Errorf("attempt %d", len(starts))
			case 3:
				panic("attempt 3")
			}
			ready()
			<-ctx.Done()
			return ctx.Err()
		}})
		stop := run(t, s)
		if err := s.WaitReady(t.Context(), "flaky"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		st := s.state("flaky")
		if st.State != Ready || st.Restarts != 3 || !strings.Contains(st.LastError, "panic: attempt 3") {
			t.Errorf("%+v", st)
		}
		// Doubling delays with half to one and a half of jitter.
		for i, limit := range []time.Duration{backoffMin, 2 * backoffMin, 4 * backoffMin} {
			if d := starts[i+1].Sub(starts[i]); d < limit/2 || d > limit*3/2 {
				t.Errorf("pause %d was %s, want about %s", i, d, limit)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRestartNeverEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		broken := errors.New("store is corrupt")
		s := mustNew(t, r.component("other"), Component{
			Name: "etcd", After: []string{"other"}, Restart: RestartNever,
			Run: func(context.Context, func()) error { return broken },
		})
		err := s.Run(t.Context())
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "etcd: ") {
			t.Errorf("got %v", err)
		}
		if s.state("etcd").State != Failed || !slices.Contains(r.seen, "stop other") {
			t.Errorf("%v %v", s.Status(), r.seen)
		}
	})
}

func TestRunOnceIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		r := &recorder{}
		s := mustNew(t, Component{Name: "import", Restart: RunOnce, Run: func(context.Context, func()) error {
			if attempts++; attempts < 2 {
				return errors.New("not yet")
			}
			return nil
		}}, r.component("user", "import"))
		stop := run(t, s)
		if err := s.WaitReady(t.Context(), "user"); err != nil {
			t.Fatal(err)
		}
		if st := s.state("import"); st.State != Done || attempts != 2 {
			t.Errorf("%+v after %d attempts", st, attempts)
		}
		_ = stop()
	})
}

func TestStubbornComponentIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := mustNew(t, Component{Name: "stubborn", Grace: time.Second, Run: func(_ context.Context, ready func()) error {
			ready()
			<-release
			return nil
		}})
		stop := run(t, s)
		_ = s.WaitReady(t.Context(), "stubborn")
		begin := time.Now()
		_ = stop()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("stop took %s", took)
		}
		close(release)
	})
}

func TestStatusSaysWhatIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t,
			Component{Name: "slow", Run: func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }},
			Component{Name: "user", After: []string{"slow"}, Run: func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }})
		changed := s.Changed()
		stop := run(t, s)
		<-changed
		synctest.Wait()
		if st := s.state("user"); st.State != Waiting || !slices.Equal(st.WaitingFor, []string{"slow"}) {
			t.Errorf("%+v", st)
		}
		_ = stop()
	})
}

func TestGraphIsChecked(t *testing.T) {
	noop := func(context.Context, func()) error { return nil }
	for name, cs := range map[string][]Component{
		"does not exist":      {{Name: "a", After: []string{"b"}, Run: noop}},
		"wait for each other": {{Name: "a", After: []string{"b"}, Run: noop}, {Name: "b", After: []string{"a"}, Run: noop}},
		"listed twice":        {{Name: "a", Run: noop}, {Name: "a", Run: noop}},
		"needs a name":        {{Run: noop}},
	} {
		if _, err := New(quiet, cs...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
