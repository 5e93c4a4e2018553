package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/history"
)

const (
	// inventoryName is the name of the inventory of a site's directory.
	inventoryName = "site"

	// While the API server starts it is asked often: it is on the path from
	// power-on to a running workload.
	apiRetryFast = 100 * time.Millisecond
	apiRetrySlow = time.Second
	apiFastFor   = 30 * time.Second

	// While many objects are on their way their health is looked at together:
	// each look is a request, and their status moves several times.
	crowd      = 20
	crowdPause = 500 * time.Millisecond

	objectRetryMin = time.Second
	objectRetryMax = time.Minute
)

// workloads is the component that applies the site's directory.
type workloads struct {
	*Reconciler
	engine *apply.Engine
	// moved is woken by the engine when an object drifted or its health moved.
	moved chan struct{}
	site  *site
	ready func()
}

func newWorkloads(r *Reconciler) *workloads {
	return &workloads{Reconciler: r, moved: make(chan struct{}, 1)}
}

// run reconciles one commit after another. A newer one ends whatever was being
// done for the one before.
func (w *workloads) run(ctx context.Context, ready func()) error {
	w.ready = ready
	defer func() {
		if w.engine != nil {
			w.engine.Close()
		}
	}()
	for {
		s, replaced := w.Accepted()
		switch {
		case s == nil:
		case w.cfg.Applies != nil && !w.cfg.Applies(s):
			w.board.update(func(st *Status) { st.Phase, st.Message = PhaseFollowing, "" })
			ready()
		default:
			until, cancel := untilClosed(ctx, replaced)
			err := w.reconcile(until, s)
			ended := until.Err() != nil
			cancel()
			if !ended {
				return err
			}
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// untilClosed returns a context that ends with ctx or when ch is closed.
func untilClosed(ctx context.Context, ch <-chan struct{}) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-ch:
			cancel()
		case <-out.Done():
		}
	}()
	return out, cancel
}

// reconcile works on one commit until ctx ends, and returns why it ended.
func (w *workloads) reconcile(ctx context.Context, s *Snapshot) error {
	j := &job{workloads: w, snapshot: s, retry: objectRetryMin}
	for {
		if err := j.awaitResumed(ctx); err != nil {
			return err
		}
		err := j.build(ctx)
		var blocked *buildError
		switch {
		case errors.As(err, &blocked):
			if err := j.hold(ctx, j.backoff()); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			return j.run(ctx)
		}
	}
}

// job is the work on one commit.
type job struct {
	*workloads
	snapshot *Snapshot
	// began is when the first pass that the API server answered throughout
	// began, applied when all objects had been sent for the first time.
	began, applied time.Time
	pass           *apply.Pass
	changes        history.Changes
	retry          time.Duration
	// late says that the time for becoming healthy is over.
	late bool
}

// run keeps the cluster at the commit. It acts on events: of its objects, of
// whoever asks, and on timers while something is wrong.
func (j *job) run(ctx context.Context) error {
	if err := j.connected(ctx, j.prepare); err != nil {
		return err
	}
	for {
		summary, err := j.sync(ctx)
		if err != nil {
			return err
		}
		wait, wanted := j.next(summary)
		var timer <-chan time.Time
		if wanted {
			timer = time.After(wait)
		}
		if err := j.idle(ctx, timer); err != nil {
			return err
		}
		if len(summary.Pending) > crowd {
			if err := sleep(ctx, crowdPause); err != nil {
				return err
			}
		}
		if err := j.awaitResumed(ctx); err != nil {
			return err
		}
	}
}

// prepare hands the wanted objects to the engine.
func (j *job) prepare(ctx context.Context) error {
	client, hub, err := j.cluster.get()
	if err != nil {
		return err
	}
	if j.site.wantsFlux {
		if err := j.definitions.EnsureDefinitions(ctx); err != nil {
			return fmt.Errorf("%w: %w", apply.ErrUnavailable, err)
		}
	}
	options := j.site.options
	options.Name, options.Store = inventoryName, apply.ConfigMapStore(client, inventoryName)
	options.Hub, options.Log = hub, j.log
	options.Notify = func() { wake(j.moved) }
	if j.engine == nil {
		j.engine = apply.NewEngine(client, options)
	} else {
		j.engine.Configure(options)
	}
	return j.engine.Set(apply.Desired{Commit: j.snapshot.Commit, Objects: j.site.objects, AllowPrune: j.snapshot.allowsPrune})
}

// sync makes a pass over all objects, looks at their health, and reports both.
func (j *job) sync(ctx context.Context) (apply.Summary, error) {
	var pass *apply.Pass
	var summary apply.Summary
	err := j.connected(ctx, func(ctx context.Context) (err error) {
		attempt := time.Now()
		if pass, err = j.engine.Sync(ctx); err != nil {
			return err
		}
		if j.began.IsZero() {
			j.began = attempt
		}
		summary, err = j.engine.Health(ctx)
		return err
	})
	if err != nil {
		return summary, err
	}
	first := j.pass == nil || len(j.pass.Failures) > 0
	j.pass = pass
	j.reportDrift(pass)
	j.reportPass(pass, summary, first)
	if len(pass.Failures) == 0 && pass.Guard == nil {
		j.reportHealth(summary)
	}
	j.ready()
	return summary, nil
}

// next says how long to wait if nothing happens; false means for ever.
func (j *job) next(summary apply.Summary) (time.Duration, bool) {
	switch {
	case len(j.pass.Failures) > 0:
		return j.backoff(), true
	case j.pass.Guard != nil, summary.Done(), j.late:
		return 0, false
	}
	return j.healthLeft(), true
}

func (j *job) healthLeft() time.Duration {
	return max(time.Until(j.began.Add(j.healthTimeout())), 10*time.Millisecond)
}

func (j *job) backoff() time.Duration {
	d := jitter(j.retry)
	j.retry = min(j.retry*2, objectRetryMax)
	return d
}

// idle waits until something happens.
func (j *job) idle(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-timer:
	case <-j.moved:
	case <-j.applyNow:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// hold keeps the objects of the commit before as they are, for a while or
// until somebody asks.
func (j *job) hold(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-j.applyNow:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-j.moved:
		}
		if j.engine == nil {
			continue
		}
		err := j.connected(ctx, func(ctx context.Context) error {
			pass, err := j.engine.Sync(ctx)
			if err == nil {
				j.reportDrift(pass)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}

// awaitResumed waits while the sync is suspended.
func (j *job) awaitResumed(ctx context.Context) error {
	for j.isSuspended(&j.syncSuspended) {
		j.ready()
		select {
		case <-j.applyNow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// connected calls do, again and again while the API server does not answer.
func (j *job) connected(ctx context.Context, do func(context.Context) error) error {
	began := time.Now()
	var lastChange time.Time
	for attempt := 1; ; attempt++ {
		err := do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, apply.ErrUnavailable) {
			return err
		}
		if now := time.Now(); now.Sub(lastChange) > time.Second {
			lastChange = now
			j.board.update(func(s *Status) { s.Phase, s.Message = PhaseWaitAPI, err.Error() })
		}
		wait := apiRetryFast
		if time.Since(began) > apiFastFor {
			wait = apiRetrySlow
		}
		if attempt%20 == 0 {
			j.cluster.reload()
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *job) healthTimeout() time.Duration {
	if j.cfg.HealthTimeout > 0 {
		return j.cfg.HealthTimeout
	}
	return j.snapshot.settings.GitOps.HealthTimeout.Duration
}

func count(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}

func list(ids []apply.ID) string {
	const shown = 5
	text := ""
	for i, id := range ids {
		if i == shown {
			return text + fmt.Sprintf(" and %d more", len(ids)-shown)
		}
		if i == 0 {
			text = ": "
		} else {
			text += ", "
		}
		text += id.String()
	}
	return text
}
