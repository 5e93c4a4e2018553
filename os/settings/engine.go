package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxInterruptions is how many restarts of the machine a trial may see: one can be chance,
// two are taken for its doing.
const maxInterruptions = 2

// defaultLimit is for proposals that do not say how long they may take.
const defaultLimit = 5 * time.Minute

// Part applies one kind of settings.
type Part interface {
	// Name is what errors call it.
	Name() string
	// Apply brings the machine from one set of settings to another. After an error it is
	// asked to go the way back, from what it has applied only in part.
	Apply(ctx context.Context, from, to *Settings) error
}

// Config is what an engine works with.
type Config struct {
	// Dir keeps what is known across restarts.
	Dir string
	// Parts are applied in their order.
	Parts []Part
	// Ignored says which settings have no effect on this machine; it may be nil.
	Ignored func(*Settings) []string
	// AfterUpdate says which settings only another image can bring; it may be nil.
	AfterUpdate func(*Settings) []string
	// Applied is called when all parts have applied other settings, on trial or back from
	// one; it may be nil.
	Applied func(context.Context, *Settings) error
	// Confirmed is called when settings have proved themselves; it may be nil.
	Confirmed func()
	Log       *slog.Logger
}

// Proposal are settings that a commit wants.
type Proposal struct {
	Commit   string   `json:"commit"`
	Settings Settings `json:"settings"`
	// Needs are what has to work for them to be confirmed.
	Needs []string `json:"needs,omitempty"`
}

// Status is which settings are in force, and what became of others.
type Status struct {
	InForce InForce `json:"inForce"`
	Hash    string  `json:"hash"`
	// Trial is nil unless there is one; RevertAt is when it ends.
	Trial    *Trial     `json:"trial,omitempty"`
	RevertAt *time.Time `json:"revertAt,omitempty"`
	// Undone is the last change that was undone, nil once another is in force.
	Undone *Undone `json:"undone,omitempty"`
	// Problems are settings in force that could not be applied when the machine started.
	Problems []string `json:"problems,omitempty"`
	// Ignored are settings that have no effect on this machine.
	Ignored []string `json:"ignored,omitempty"`
	// AfterUpdate are settings that only another image can bring: arguments of the kernel
	// that its signed boot file does not have.
	AfterUpdate []string `json:"afterUpdate,omitempty"`
}

// Engine tries and keeps settings.
type Engine struct {
	cfg   Config
	store store

	mu      sync.Mutex
	status  Status
	changed chan struct{}
	// retry is a trial that was interrupted.
	retry *Trial

	requests chan request
}

// request is one of its fields.
type request struct {
	Propose *Proposal `json:"propose,omitempty"`
	Confirm string    `json:"confirm,omitempty"`
	Forget  bool      `json:"forget,omitempty"`
}

// Open reads what is in force. A trial that the machine did not survive is over.
func Open(cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, store: store{cfg.Dir}, changed: make(chan struct{}), requests: make(chan request)}
	inForce, trial, undone, err := e.store.load()
	if err != nil {
		return nil, err
	}
	e.status.InForce, e.status.Undone = *inForce, undone
	if trial != nil {
		if err := e.interrupted(trial); err != nil {
			return nil, err
		}
	}
	e.describe()
	return e, nil
}

// interrupted ends a trial of an earlier life.
func (e *Engine) interrupted(trial *Trial) error {
	undone := e.status.Undone
	switch {
	case Hash(&e.status.InForce.Settings) == trial.Hash(), undone != nil && undone.Hash == trial.Hash():
		// It had ended, and only its record was left.
		return e.store.remove(e.store.trialFile())
	case trial.Interruptions+1 >= maxInterruptions:
		return e.giveUp(trial, "the machine started again twice while they were on trial")
	}
	// The count is on disk before anything is tried again.
	trial.Interruptions++
	e.cfg.Log.Warn("the machine started again while settings were on trial: the old ones are in force", "commit", trial.Commit)
	if err := e.store.write(e.store.trialFile(), trial); err != nil {
		return err
	}
	e.retry = trial
	return nil
}

// InForce are the settings that the machine is to have when it starts.
func (e *Engine) InForce() *Settings {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status.InForce.Settings
	return &s
}

// Start applies the settings in force by some of the parts. What cannot be applied is a
// problem and no error: the machine has to start.
func (e *Engine) Start(ctx context.Context, parts ...Part) {
	settings, problems := e.InForce(), []string(nil)
	for _, p := range parts {
		if err := p.Apply(ctx, &Settings{}, settings); err != nil {
			e.cfg.Log.Warn("a setting of the repository was not applied", "part", p.Name(), "err", err)
			problems = append(problems, p.Name()+": "+err.Error())
		}
	}
	e.set(func(s *Status) { s.Problems = problems })
}

// Complain notes what a part could not apply when the machine started.
func (e *Engine) Complain(p Part, problem error) {
	e.set(func(s *Status) { s.Problems = append(slices.Clone(s.Problems), p.Name()+": "+problem.Error()) })
}

// Status returns the present state and a channel that is closed at its next change.
func (e *Engine) Status() (Status, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status, e.changed
}

func (e *Engine) set(change func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.status)
	e.describe()
	close(e.changed)
	e.changed = make(chan struct{})
}

// describe fills in what follows from the settings in force.
func (e *Engine) describe() {
	s := &e.status
	settings := &s.InForce.Settings
	s.Hash = Hash(settings)
	if s.Trial != nil {
		settings = &s.Trial.Settings
	}
	if e.cfg.Ignored != nil {
		s.Ignored = e.cfg.Ignored(settings)
	}
	if e.cfg.AfterUpdate != nil {
		s.AfterUpdate = e.cfg.AfterUpdate(&s.InForce.Settings)
	}
}

// Propose asks for settings to be tried, in place of any that are on trial. It returns when
// the engine knows, or ctx has ended.
func (e *Engine) Propose(ctx context.Context, p Proposal) { e.ask(ctx, request{Propose: &p}) }

// Confirm says that the machine does what it is for with the settings of this hash.
func (e *Engine) Confirm(ctx context.Context, hash string) { e.ask(ctx, request{Confirm: hash}) }

// Forget has what was undone be forgotten, so that it may be tried again.
func (e *Engine) Forget(ctx context.Context) { e.ask(ctx, request{Forget: true}) }

func (e *Engine) ask(ctx context.Context, r request) {
	select {
	case e.requests <- r:
	case <-ctx.Done():
	}
}

// Run does what it is asked for until ctx ends. A trial that is under way then is left as
// it is, and over when the engine is opened again.
func (e *Engine) Run(ctx context.Context) error {
	expired := time.NewTimer(0)
	expired.Stop()
	defer expired.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-expired.C:
			if err := e.undo(ctx, "the machine did not prove in time that it still has what it had: "+e.needs()); err != nil {
				return err
			}
		case r := <-e.requests:
			if err := e.handle(ctx, r); err != nil {
				return err
			}
		}
		if st, _ := e.Status(); st.RevertAt != nil {
			expired.Reset(time.Until(*st.RevertAt))
		} else {
			expired.Stop()
		}
	}
}

func (e *Engine) needs() string {
	st, _ := e.Status()
	if st.Trial == nil || len(st.Trial.Needs) == 0 {
		return "an agent that says so"
	}
	return strings.Join(st.Trial.Needs, ", ")
}

func (e *Engine) handle(ctx context.Context, r request) error {
	st, _ := e.Status()
	switch {
	case r.Forget:
		if err := e.store.remove(e.store.undoneFile()); err != nil {
			return err
		}
		e.set(func(s *Status) { s.Undone = nil })
	case r.Confirm != "":
		if st.Trial != nil && st.Trial.Applied && st.Trial.Hash() == r.Confirm {
			return e.confirm(st.Trial)
		}
	case r.Propose != nil:
		return e.try(ctx, r.Propose)
	}
	return nil
}

// try begins a trial. Settings that are in force, on trial or undone already are no news.
func (e *Engine) try(ctx context.Context, p *Proposal) error {
	st, _ := e.Status()
	hash := Hash(&p.Settings)
	if st.Trial != nil {
		if st.Trial.Hash() == hash {
			return nil
		}
		e.cfg.Log.Info("newer settings take the place of those on trial", "commit", p.Commit)
		if err := e.goBack(ctx, st.Trial); err != nil {
			e.cfg.Log.Warn("settings on trial were not undone in full", "err", err)
		}
		if err := e.endTrial(); err != nil {
			return err
		}
	}
	if hash == st.Hash {
		return e.settle(p, st)
	}
	if st.Undone != nil && st.Undone.Hash == hash {
		return nil
	}
	limit := p.Settings.RevertAfter.Duration
	if limit <= 0 {
		limit = defaultLimit
	}
	trial := &Trial{Settings: p.Settings, Commit: p.Commit, Needs: p.Needs, Began: time.Now(), Limit: limit}
	if e.retry != nil && e.retry.Hash() == hash {
		trial.Interruptions = e.retry.Interruptions
	}
	e.retry = nil
	// On disk before anything changes: whatever happens from here on, the machine comes
	// back with the old ones.
	if err := e.store.write(e.store.trialFile(), trial); err != nil {
		return err
	}
	end := trial.Began.Add(limit)
	e.set(func(s *Status) { s.Trial, s.RevertAt = trial, &end })
	e.cfg.Log.Info("trying settings", "commit", p.Commit, "revertAfter", limit)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	if err := e.apply(ctx, &st.InForce.Settings, &trial.Settings); err != nil {
		return e.undo(context.WithoutCancel(ctx), err.Error())
	}
	applied := *trial
	applied.Applied = true
	e.set(func(s *Status) { s.Trial = &applied })
	return nil
}

// settle takes over a commit whose settings are in force already. What was undone is over
// with it.
func (e *Engine) settle(p *Proposal, st Status) error {
	if st.InForce.Settings.RevertAfter != p.Settings.RevertAfter {
		st.InForce.Settings.RevertAfter = p.Settings.RevertAfter
		if err := e.store.write(e.store.inForceFile(), &st.InForce); err != nil {
			return err
		}
	}
	if err := errors.Join(e.store.remove(e.store.undoneFile()), e.store.remove(e.store.trialFile())); err != nil {
		return err
	}
	e.retry = nil
	e.set(func(s *Status) { s.InForce, s.Undone = st.InForce, nil })
	return nil
}

func (e *Engine) apply(ctx context.Context, from, to *Settings) error {
	for _, p := range e.cfg.Parts {
		if err := p.Apply(ctx, from, to); err != nil {
			return fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
	return e.tell(ctx, to)
}

func (e *Engine) tell(ctx context.Context, s *Settings) error {
	if e.cfg.Applied == nil {
		return nil
	}
	return e.cfg.Applied(ctx, s)
}

// confirm makes the settings on trial those in force.
func (e *Engine) confirm(trial *Trial) error {
	now := time.Now()
	inForce := InForce{Settings: trial.Settings, Commit: trial.Commit, Since: &now}
	// Once the first is written the trial is over, whenever the power goes.
	err := errors.Join(e.store.write(e.store.inForceFile(), &inForce), e.store.remove(e.store.trialFile()), e.store.remove(e.store.undoneFile()))
	if err != nil {
		return err
	}
	e.cfg.Log.Info("settings are in force", "commit", trial.Commit)
	if e.cfg.Confirmed != nil {
		e.cfg.Confirmed()
	}
	e.set(func(s *Status) { s.InForce, s.Trial, s.RevertAt, s.Undone, s.Problems = inForce, nil, nil, nil, nil })
	return nil
}

// undo ends the trial with the old settings.
func (e *Engine) undo(ctx context.Context, reason string) error {
	st, _ := e.Status()
	if st.Trial == nil {
		return nil
	}
	e.cfg.Log.Warn("undoing settings", "commit", st.Trial.Commit, "reason", reason)
	if err := e.goBack(ctx, st.Trial); err != nil {
		e.cfg.Log.Error("the old settings are not back in full", "err", err)
		reason += "; the old ones are not back in full: " + err.Error()
	}
	return e.giveUp(st.Trial, reason)
}

// goBack has every part go back, whatever others say.
func (e *Engine) goBack(ctx context.Context, trial *Trial) error {
	inForce := e.InForce()
	var errs []error
	for _, p := range slices.Backward(e.cfg.Parts) {
		if err := p.Apply(ctx, &trial.Settings, inForce); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name(), err))
		}
	}
	return errors.Join(append(errs, e.tell(ctx, inForce))...)
}

// giveUp remembers settings that are not to be tried again.
func (e *Engine) giveUp(trial *Trial, reason string) error {
	undone := &Undone{Hash: trial.Hash(), Commit: trial.Commit, At: time.Now(), Reason: reason}
	if err := e.store.write(e.store.undoneFile(), undone); err != nil {
		return err
	}
	e.set(func(s *Status) { s.Undone = undone })
	return e.endTrial()
}

func (e *Engine) endTrial() error {
	if err := e.store.remove(e.store.trialFile()); err != nil {
		return err
	}
	e.set(func(s *Status) { s.Trial, s.RevertAt = nil, nil })
	return nil
}
