package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// RestartPolicy says what happens when Run returns before its context ended.
type RestartPolicy int

const (
	// RestartAlways runs the component again after a back-off.
	RestartAlways RestartPolicy = iota
	// RestartNever ends the whole supervisor with the component's error. It is
	// for components that keep process-wide state and cannot run twice in one
	// process, as upstream Kubernetes components do: the process is restarted
	// instead.
	RestartNever
	// RunOnce is for work that ends: a nil return counts as ready for ever, an
	// error is retried with back-off.
	RunOnce
)

// Component is one long-lived part of a process.
type Component struct {
	// Name identifies the component in After, in status and in logs.
	Name string
	// After names the components that must be ready before Run is called. A
	// dependency that fails later does not stop the component.
	After []string
	// Run works until ctx ends, then returns nil or ctx.Err(). It calls ready
	// once, when others may rely on it; further calls do nothing. Run is called
	// again after an error or a panic, as Restart says, never concurrently with
	// itself. Errors say what was being done and what an operator can do.
	Run func(ctx context.Context, ready func()) error
	// Restart says what happens on an early return.
	Restart RestartPolicy
	// Grace is how long Run may take to return once ctx has ended; 10 s if zero.
	// A component that takes longer is abandoned and reported.
	Grace time.Duration
	// MaxBackoff is the longest pause before a restart; 30 s if zero.
	MaxBackoff time.Duration
}

// State is where a component is in its life.
type State string

// The states of a component; see the diagram in the package comment.
const (
	Waiting  State = "waiting"
	Starting State = "starting"
	Ready    State = "ready"
	Done     State = "done"
	Backoff  State = "backoff"
	Failed   State = "failed"
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// Event is one change of state.
type Event struct {
	Time  time.Time `json:"time"`
	State State     `json:"state"`
	Error string    `json:"error,omitempty"`
}

// Status is a component as an operator sees it.
type Status struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	// StartTook is the time from start to the last ready, in nanoseconds.
	StartTook time.Duration `json:"startTook"`
	// WaitingFor lists the dependencies that are not ready.
	WaitingFor []string `json:"waitingFor,omitempty"`
	LastError  string   `json:"lastError,omitempty"`
	Events     []Event  `json:"events,omitempty"`
}

const (
	historyLength = 20
	defaultGrace  = 10 * time.Second
	backoffMin    = 200 * time.Millisecond
	backoffMax    = 30 * time.Second
	// A component that stayed ready this long starts its back-off anew.
	backoffReset = 30 * time.Second
)

// Supervisor runs a fixed set of components.
type Supervisor struct {
	log   *slog.Logger
	tasks []*task
	index map[string]*task

	mu      sync.Mutex
	changed chan struct{}
}

type task struct {
	Component
	status    Status
	readyCh   chan struct{} // closed at the first ready
	readyOnce sync.Once
	done      chan struct{} // closed when the task's loop has ended
	gone      chan struct{} // closed when it has ended or was abandoned
	cancel    context.CancelFunc
}

// New checks the graph: names are unique, dependencies exist, and there is no
// cycle. Components keep the order in which they are given in Status.
func New(log *slog.Logger, components ...Component) (*Supervisor, error) {
	s := &Supervisor{log: log, index: map[string]*task{}, changed: make(chan struct{})}
	now := time.Now()
	for _, c := range components {
		if c.Name == "" || c.Run == nil {
			return nil, fmt.Errorf("component %q: needs a name and a Run function", c.Name)
		}
		if s.index[c.Name] != nil {
			return nil, fmt.Errorf("component %q is listed twice", c.Name)
		}
		t := &task{Component: c, readyCh: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{})}
		t.status = Status{Name: c.Name, State: Waiting, Since: now}
		s.tasks = append(s.tasks, t)
		s.index[c.Name] = t
	}
	return s, s.checkGraph()
}

func (s *Supervisor) checkGraph() error {
	const visiting, visited = 1, 2
	mark := map[string]int{}
	var visit func(t *task, path []string) error
	visit = func(t *task, path []string) error {
		path = append(path, t.Name)
		switch mark[t.Name] {
		case visited:
			return nil
		case visiting:
			return fmt.Errorf("components wait for each other: %v", path)
		}
		mark[t.Name] = visiting
		for _, dep := range t.After {
			d := s.index[dep]
			if d == nil {
				return fmt.Errorf("component %q comes after %q, which does not exist", t.Name, dep)
			}
			if err := visit(d, path); err != nil {
				return err
			}
		}
		mark[t.Name] = visited
		return nil
	}
	for _, t := range s.tasks {
		if err := visit(t, nil); err != nil {
			return err
		}
	}
	return nil
}

// Run starts all components and returns when ctx has ended and all have
// stopped, or when a RestartNever component returned early: then with that
// component's error, after stopping the others. It is called once.
func (s *Supervisor) Run(ctx context.Context) error {
	// Components stop one by one in reverse order, so their contexts must not
	// end with ctx itself.
	base := context.WithoutCancel(ctx)
	fatal := make(chan error, len(s.tasks))
	for _, t := range s.tasks {
		tctx, cancel := context.WithCancel(base)
		t.cancel = cancel
		go s.loop(tctx, t, fatal)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-fatal:
		s.log.Error("component failed, stopping", "err", err)
	}
	s.stop()
	return err
}

// stop ends components in reverse dependency order: a component is told to
// stop once everything that comes after it has gone.
func (s *Supervisor) stop() {
	var wg sync.WaitGroup
	for _, t := range s.tasks {
		wg.Go(func() {
			defer close(t.gone)
			for _, later := range s.tasks {
				if slices.Contains(later.After, t.Name) {
					<-later.gone
				}
			}
			s.set(t, Stopping, nil)
			t.cancel()
			s.waitDone(t)
		})
	}
	wg.Wait()
}

func (s *Supervisor) waitDone(t *task) {
	grace := t.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
		s.log.Info("component did not stop in time, abandoned", "component", t.Name, "grace", grace)
	}
}

func (s *Supervisor) loop(ctx context.Context, t *task, fatal chan<- error) {
	defer close(t.done)
	if !s.waitForDependencies(ctx, t) {
		s.set(t, Stopped, nil)
		return
	}
	delay := backoffMin
	for {
		started := time.Now()
		s.set(t, Starting, nil)
		err := s.runOnce(ctx, t)
		if ctx.Err() != nil {
			s.set(t, Stopped, nil)
			return
		}
		if t.Restart == RunOnce && err == nil {
			s.markReady(t, Done)
			<-ctx.Done()
			s.set(t, Stopped, nil)
			return
		}
		if err == nil {
			err = errors.New("ended without being told to")
		}
		if t.Restart == RestartNever {
			s.set(t, Failed, err)
			fatal <- fmt.Errorf("%s: %w", t.Name, err)
			return
		}
		if time.Since(started) > backoffReset {
			delay = backoffMin
		}
		s.set(t, Backoff, err)
		s.log.Error("component failed, will start again", "component", t.Name, "err", err, "after", delay)
		if !sleep(ctx, jitter(delay)) {
			s.set(t, Stopped, nil)
			return
		}
		delay = min(delay*2, t.maxBackoff())
		s.mu.Lock()
		t.status.Restarts++
		s.mu.Unlock()
	}
}

func (t *task) maxBackoff() time.Duration {
	if t.MaxBackoff > 0 {
		return t.MaxBackoff
	}
	return backoffMax
}

func (s *Supervisor) waitForDependencies(ctx context.Context, t *task) bool {
	for _, dep := range t.After {
		select {
		case <-s.index[dep].readyCh:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (s *Supervisor) runOnce(ctx context.Context, t *task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("component panicked", "component", t.Name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return t.Run(ctx, func() { s.markReady(t, Ready) })
}

func (s *Supervisor) markReady(t *task, state State) {
	s.mu.Lock()
	current := t.status.State
	if current == Starting {
		t.status.StartTook = time.Since(t.status.Since)
	}
	s.mu.Unlock()
	if current == Starting {
		s.set(t, state, nil)
	}
	t.readyOnce.Do(func() { close(t.readyCh) })
}

func (s *Supervisor) set(t *task, state State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.status.State == state || t.status.State == Failed {
		return
	}
	now := time.Now()
	t.status.State, t.status.Since = state, now
	ev := Event{Time: now, State: state}
	if err != nil {
		ev.Error = err.Error()
		t.status.LastError = ev.Error
	}
	t.status.Events = append(t.status.Events, ev)
	if n := len(t.status.Events); n > historyLength {
		t.status.Events = slices.Delete(t.status.Events, 0, n-historyLength)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.log.Debug("component", "component", t.Name, "state", state, "err", err)
}

// Status returns the components in the order they were given to New.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.tasks))
	for _, t := range s.tasks {
		st := t.status
		st.Events = slices.Clone(st.Events)
		if st.State == Waiting {
			for _, dep := range t.After {
				select {
				case <-s.index[dep].readyCh:
				default:
					st.WaitingFor = append(st.WaitingFor, dep)
				}
			}
		}
		out = append(out, st)
	}
	return out
}

// Changed returns a channel that is closed at the next change of any state.
// Take it before calling Status, so that no change is missed.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// WaitReady blocks until the named component was ready once, or ctx ends.
func (s *Supervisor) WaitReady(ctx context.Context, name string) error {
	t := s.index[name]
	if t == nil {
		return fmt.Errorf("no component %q", name)
	}
	select {
	case <-t.readyCh:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
